"""What a picture and a description look like to the network: one embedding each, computed once and kept by content.

Three implementations: `CompactScene` (two small pretrained networks, in `compact_senses`), `LightScene` (nothing to
install) and `QwenScene` (a vision-language model, frozen). `senses.load_scene_encoder(name)` gives any.
"""

from __future__ import annotations

import re
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smellkit import cache, paths
from smellkit.checks import read_picture
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.float32]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
LONGEST = 10_000  # characters of a text
MEMORY_ERRORS = ("out of memory", "can't allocate memory")  # in the RuntimeErrors of torch


class SceneEncoder(ABC):
    """Pictures and texts in, embeddings out; every embedding is computed once and kept under `data/work/scene`.

    >>> vision = LightScene().vision(["pear.jpg", None])
    >>> np.isnan(vision[1]).all()      # a missing picture is NaN, so that nobody can take it for data
    True
    """

    identity: str  # all that an embedding depends on besides its input: kind, revision, options
    vision_size: int
    text_size: int
    batch: int = 32

    @abstractmethod
    def embed_pictures(self, pictures: list[Image]) -> Array:
        """Return one embedding a picture (RGB), (n, vision_size)."""

    @abstractmethod
    def embed_texts(self, texts: list[str]) -> Array:
        """Return one embedding a text, (n, text_size)."""

    def vision(self, pictures: Sequence[Path | str | Image | None]) -> Array:
        """Return the pictures' embeddings, (n, vision_size); a picture is a path, a PIL image or None.

        A file that can't be read is a DataError that names it.
        """
        keys = [None if picture is None else _picture_key(picture) for picture in pictures]
        compute = lambda rows: self.embed_pictures([_rgb(pictures[row]) for row in rows])  # noqa: E731
        return self._cached("vision", keys, self.vision_size, compute)

    def text(self, texts: Sequence[str | None]) -> Array:
        """Return the texts' embeddings, (n, text_size)."""
        for text in texts:
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise DataError(f"A description is {text!r}", hint="give a text, or None when there is none")
            if text is not None and len(text) > LONGEST:
                raise DataError(f"A text of {len(text):,} characters", hint=f"a few sentences, at most {LONGEST:,}")
        keys = [None if text is None else sha256(text.encode()).hexdigest() for text in texts]
        compute = lambda rows: self.embed_texts([str(texts[row]) for row in rows])  # noqa: E731
        return self._cached("text", keys, self.text_size, compute)

    def _cached(self, kind: str, keys: list[str | None], size: int, compute: Callable[[list[int]], Array]) -> Array:
        """Embeddings by key; each is kept as a file with the sha256 of its bytes first, and a damaged one made anew."""
        folder = paths.work() / "scene" / sha256(self.identity.encode()).hexdigest()[:16] / kind
        known: dict[str | None, Array] = {None: np.full(size, np.nan, np.float32)}
        for key in set(keys) - {None}:
            data = path.read_bytes() if (path := folder / str(key)).is_file() else b""
            if len(data) == 32 + 4 * size and sha256(data[32:]).digest() == data[:32]:
                known[key] = np.frombuffer(data[32:], np.float32)
        absent = [keys.index(key) for key in dict.fromkeys(keys) if key not in known]  # each content once
        for row, embedding in in_batches(compute, absent, batch=self.batch):
            known[keys[row]] = embedding
            content = np.ascontiguousarray(embedding, dtype=np.float32).tobytes()
            with paths.replacing(folder / str(keys[row])) as part:
                part.write_bytes(sha256(content).digest() + content)
        return np.array([known[key] for key in keys], np.float32).reshape(len(keys), size)


def in_batches(compute: Callable[[list[int]], Array], rows: list[int], *, batch: int) -> Iterator[tuple[int, Array]]:
    """Yield each row with its embedding; out of memory halves the batch once and says so, then fails clearly."""
    done, size = 0, batch
    while done < len(rows):
        part = rows[done : done + size]
        try:
            embeddings = compute(part)
        except (MemoryError, RuntimeError) as why:
            if isinstance(why, RuntimeError) and not any(words in str(why).lower() for words in MEMORY_ERRORS):
                raise
            if size < batch or size == 1:
                what = f"Out of memory with {size} sample{'s' * (size > 1)} at once"
                raise SmellkitError(what, hint="a smaller batch, smaller pictures or a smaller model") from why
            size = (size + 1) // 2
            warnings.warn(f"Out of memory with {batch} at once: going on with {size}.", RuntimeWarning, stacklevel=2)
            continue
        yield from zip(part, embeddings, strict=True)
        done += len(part)


def _rgb(picture: Any) -> Image:
    return read_picture(Path(picture)) if isinstance(picture, (str, Path)) else picture.convert("RGB")


def _picture_key(picture: Any) -> str:
    """The sha256 of a picture's file, or of its mode, size and pixels."""
    if not isinstance(picture, (str, Path)):
        return sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()
    try:
        return sha256(Path(picture).read_bytes()).hexdigest()
    except OSError as why:
        raise DataError(f"Could not read the picture {picture}: {why}", hint="check the path") from why


class LightScene(SceneEncoder):
    """Colour and texture statistics of the picture, hashed letters and words of the text, in milliseconds.

    It understands nothing: two words are alike when their letters are, two pictures when their colours and edges are.
    """

    identity = "light-2"
    vision_size = 177
    text_size = 256

    def embed_pictures(self, pictures: list[Image]) -> Array:
        """Describe each picture by 177 numbers: colours (72), their layout (27), edges (72) and roughness (6)."""
        return np.stack([_picture_statistics(picture) for picture in pictures])

    def embed_texts(self, texts: list[str]) -> Array:
        """Describe each text by its words, word stems and letter triples, hashed with a sign, length 1."""
        out = np.zeros((len(texts), self.text_size), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                padded = f"<{word}>"
                for piece in (word, word[:5], *(padded[i : i + 3] for i in range(len(padded) - 2))):
                    code = zlib.crc32(piece.encode())
                    out[row, code % self.text_size] += 1 if code >> 31 else -1
        out = np.sign(out) * np.sqrt(np.abs(out))
        return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-9)


def _picture_statistics(picture: Image, *, side: int = 96) -> Array:
    small = picture.convert("RGB").resize((side, side))
    hsv = np.asarray(small.convert("HSV"), np.float32).reshape(-1, 3) / 255
    rgb = np.asarray(small, np.float32) / 255
    colours, _ = np.histogramdd(hsv, bins=(12, 3, 2), range=((0, 1), (0, 1.0001), (0, 1.0001)))
    cells = rgb.reshape(3, side // 3, 3, side // 3, 3).mean(axis=(1, 3))  # 3 x 3 cells of mean colour
    grey = rgb.mean(axis=2)
    down, right = np.gradient(grey)
    turn = (np.arctan2(down, right) % np.pi) / np.pi
    third = np.minimum(np.arange(side) * 3 // side, 2)
    edges = np.zeros((3, 3, 8), np.float32)  # in each cell, how much of its edges points which way
    direction = np.minimum((turn * 8).astype(int), 7)
    np.add.at(edges, (third[:, None], third[None, :], direction), np.hypot(down, right))
    edges /= edges.sum(axis=2, keepdims=True) + 1e-3
    roughness = [np.abs(np.diff(grey[::step, ::step], axis=axis)).mean() for step in (1, 3, 8) for axis in (0, 1)]
    share = np.sqrt(colours.ravel() / colours.sum())
    return np.concatenate([share, cells.ravel(), edges.ravel(), 4 * np.array(roughness)]).astype(np.float32)


class QwenScene(SceneEncoder):
    """Embeddings of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL model, frozen: a folder, or a hub name with a pinned revision.

        picture -> patches -> vision tower -> mean over tokens -> vision
        text -> language model -> mean of the last hidden state -> text

    `pixels` bounds the size of a picture. The processors of these models need torchvision, which this kit does without:
    pictures go through the processor's PIL version, texts through the tokenizer.
    """

    batch = 8

    def __init__(self, name: str, *, revision: str = "", pixels: int = 448 * 448):
        self._model, self._tokenizer, self._pictures = _load_qwen(name, revision, pixels)
        self._model.eval().requires_grad_(False)
        self.vision_size = self.text_size = self._model.config.text_config.hidden_size
        files = {path.name: path for path in sorted(Path(name).glob("*")) if path.is_file()}
        self.identity = f"qwen-vl-2 {cache.digests(files) if files else f'{name}@{revision}'} {pixels}"

    def embed_pictures(self, pictures: list[Image]) -> Array:
        import torch

        batch = self._pictures(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        with torch.inference_mode():  # tokens of picture i: (tokens_i, hidden size)
            features = self._model.get_image_features(**batch).pooler_output
        return np.stack([tokens.float().mean(dim=0).numpy() for tokens in features])

    def embed_texts(self, texts: list[str]) -> Array:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        most = self._model.config.text_config.max_position_embeddings // 2
        read = [self._tokenizer(text, add_special_tokens=False)["input_ids"][:most] for text in texts]
        ids = pad_sequence([torch.tensor(row, dtype=torch.long) for row in read], batch_first=True)  # (n, longest)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in read], batch_first=True)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            weight = mask.unsqueeze(-1).to(states.dtype)  # (n, longest, 1): the padding does not count
            return ((states * weight).sum(dim=1) / weight.sum(dim=1)).float().numpy()


def _load_qwen(name: str, revision: str, pixels: int) -> tuple[Any, Any, Any]:
    """Return model, tokenizer and picture processor; nothing but safetensors is read, no code of the model is run."""
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen2VLImageProcessorPil
    except ImportError as why:
        raise SmellkitError("Qwen-VL needs transformers", hint="pip install 'smellkit[vlm]'") from why
    where: dict[str, Any] = {} if Path(name).is_dir() else {"revision": _pinned(name, revision)}
    try:
        config = AutoConfig.from_pretrained(name, **where)
        if config.model_type not in FAMILIES:
            raise WeightsError(f"{name} is a {config.model_type!r} model", hint=f"one of {', '.join(FAMILIES)}")
        model, report = AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **where)
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        processor = Qwen2VLImageProcessorPil.from_pretrained(name, **where)
    except (OSError, ValueError, RuntimeError) as why:
        first = (str(why).strip() or type(why).__name__).splitlines()[0]
        hint = "a folder with config.json, *.safetensors, tokenizer and preprocessor_config.json"
        raise WeightsError(f"Could not load {name} as a Qwen-VL model: {first}", hint=hint) from why
    if lost := sorted(report["missing_keys"]):
        raise WeightsError(f"{name} lacks {len(lost)} tensors, among them {', '.join(lost[:5])}", hint="copy it again")
    smallest = min(processor.size["shortest_edge"], pixels)
    processor.size = type(processor.size)(shortest_edge=smallest, longest_edge=pixels)
    return model, tokenizer, processor


def _pinned(name: str, revision: str) -> str:
    """The revision of a hub name, which must be a whole commit."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise OptionError(f"There is no folder {name}", hint="a Qwen-VL folder, or a hub name such as Qwen/<model>")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise OptionError(f"{name} without a pinned revision", hint="add the 40 hex digits of a commit of that model")
    return revision
