"""Scene features from a Qwen-VL model: its vision tower pooled, and its language model's last hidden state pooled.

Any Qwen2-VL, Qwen2.5-VL or Qwen3-VL folder, or a hub name with a pinned revision. The processors of these models need
torchvision, which this kit does without: the picture goes through the processor's PIL version, the text through the
tokenizer, and the picture's place in the text is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smellkit.errors import OptionError, SmellkitError, WeightsError
from smellkit.odour.scene_encoder import Array, SceneEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


class QwenScene(SceneEncoder):
    """Embeddings of a Qwen-VL model, frozen.

        picture -> patches -> vision tower -> mean over tokens -> vision
        text (or picture + text, `together`) -> language model -> mean of the last hidden state -> text

    `pixels` bounds the size of a picture. Pictures and texts are read apart, so that hiding one modality really hides
    it; `look_and_read` puts the picture in front of the text, as the original pipeline does.
    """

    def __init__(self, name: str, *, revision: str = "", batch: int = 8, pixels: int = 448 * 448, device: str = "cpu"):
        self._model, self._tokenizer, self._pictures = _load(name, revision, pixels)
        self._model.to(device).eval().requires_grad_(False)
        self._device, self.batch = device, batch
        config = self._model.config
        self.vision_size = self.text_size = config.text_config.hidden_size
        self.identity = f"qwen-vl-2 {_fingerprint(name, revision)} {pixels}"

    def see(self, pictures: list[Image]) -> Array:
        """Return the vision tower's tokens, averaged over each picture, (n, hidden size)."""
        import torch

        pixels, grid = self._patches(pictures)
        with torch.inference_mode():
            features = self._model.get_image_features(pixel_values=pixels, image_grid_thw=grid).pooler_output
        return np.stack([tokens.float().mean(dim=0).cpu().numpy() for tokens in features])

    def read(self, texts: list[str]) -> Array:
        """Return the last hidden state, averaged over each text, (n, hidden size)."""
        return self._hidden([self._tokens(text) for text in texts])

    def look_and_read(self, pictures: list[Image], texts: list[str]) -> Array:
        """Return the last hidden state over picture and text together, averaged, (n, hidden size)."""
        pixels, grid = self._patches(pictures)
        config = self._model.config
        merge = config.vision_config.spatial_merge_size**2
        rows = []
        for text, own in zip(texts, grid, strict=True):
            places = [config.image_token_id] * (int(own.prod()) // merge)
            rows.append([config.vision_start_token_id, *places, config.vision_end_token_id, *self._tokens(text)])
        return self._hidden(rows, pixel_values=pixels, image_grid_thw=grid)

    def _hidden(self, rows: list[list[int]], **picture: Any) -> Array:
        import torch

        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        if picture:
            picture["mm_token_type_ids"] = (ids == self._model.config.image_token_id).int().to(self._device)
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            self._model.rope_deltas = None  # positions of an earlier picture must not reach this text
            states = self._model(input_ids=ids, attention_mask=mask, use_cache=False, **picture).last_hidden_state
            weight = mask.unsqueeze(-1).to(states.dtype)
            return ((states * weight).sum(dim=1) / weight.sum(dim=1)).float().cpu().numpy()

    def _patches(self, pictures: list[Image]) -> tuple[Any, Any]:
        batch = self._pictures(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        return batch["pixel_values"].to(self._device), batch["image_grid_thw"].to(self._device)

    def _tokens(self, text: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[: self._model.config.text_config.max_position_embeddings // 2]


def _load(name: str, revision: str, pixels: int) -> tuple[Any, Any, Any]:
    """Return model, tokenizer and picture processor; nothing but safetensors is read, no code of the model is run."""
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen2VLImageProcessorPil
    except ImportError as why:
        raise SmellkitError("Qwen-VL needs transformers", hint="pip install 'smellkit[vlm]'") from why
    where: dict[str, Any] = {"revision": _pinned(name, revision)}
    try:
        config = AutoConfig.from_pretrained(name, **where)
        if config.model_type not in FAMILIES:
            raise WeightsError(f"{name} is a {config.model_type!r} model", hint=f"one of {', '.join(FAMILIES)}")
        model, report = AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **where)
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        processor = Qwen2VLImageProcessorPil.from_pretrained(name, **where)
    except (OSError, ValueError, RuntimeError) as why:
        first = str(why).strip().splitlines()[0] if str(why).strip() else type(why).__name__
        raise WeightsError(
            f"Could not load {name} as a Qwen-VL model: {first}",
            hint="a folder with config.json, *.safetensors, tokenizer and preprocessor_config.json",
        ) from why
    lost = sorted(report["missing_keys"])
    if lost:
        raise WeightsError(f"{name} lacks {len(lost)} tensors, among them {', '.join(lost[:5])}", hint="copy it again")
    smallest = min(processor.size["shortest_edge"], pixels)
    processor.size = type(processor.size)(shortest_edge=smallest, longest_edge=pixels)
    return model, tokenizer, processor


def _pinned(name: str, revision: str) -> str | None:
    if Path(name).is_dir():
        return None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise OptionError(f"There is no folder {name}", hint="a Qwen-VL folder, or a hub name such as Qwen/<model>")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise OptionError(f"{name} without a pinned revision", hint="add the 40 hex digits of a commit of that model")
    return revision


def _fingerprint(name: str, revision: str) -> str:
    """Name the weights: hub name and revision, or the sizes and the beginning of a folder's files."""
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{revision}"
    from hashlib import sha256

    digest = sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".txt") and path.is_file():
            with path.open("rb") as file:
                digest.update(f"{path.name} {path.stat().st_size}".encode() + file.read(1 << 20))
                file.seek(max(path.stat().st_size - (1 << 20), 0))
                digest.update(file.read(1 << 20))
    return digest.hexdigest()
