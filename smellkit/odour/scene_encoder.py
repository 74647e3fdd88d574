"""What a picture and a description look like to the network: one embedding each, computed once and kept by content.

    pictures --- see ---> vision (n, dv)        texts --- read ---> text (n, dt)

Two implementations: `LightScene` here (no download; colours, textures and hashed letters: it knows nothing about the
world) and `QwenScene` in `scene_qwen` (a real vision-language model). `scene_encoder(name)` gives either.
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

from smellkit import paths
from smellkit.errors import DataError, SmellkitError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.float32]


class SceneEncoder(ABC):
    """Pictures and texts in, embeddings out; every embedding is computed once and kept under `data/work/scene`.

    >>> vision, text = LightScene().encode(["pear.jpg", None], ["green and watery", "sharp, like cherries"])
    >>> np.isnan(vision[1]).all()      # a missing picture is NaN, so that nobody can take it for data
    True
    """

    identity: str  # all that an embedding depends on besides its input: kind, revision, options
    vision_size: int
    text_size: int
    batch: int = 32

    @abstractmethod
    def see(self, pictures: list[Image]) -> Array:
        """Return one embedding a picture (RGB), (n, vision_size)."""

    @abstractmethod
    def read(self, texts: list[str]) -> Array:
        """Return one embedding a text, (n, text_size)."""

    def encode(self, pictures: Sequence[Path | str | Image | None], texts: Sequence[str | None]) -> tuple[Array, Array]:
        """Return vision (n, vision_size) and text (n, text_size); the row of a missing (None) input is NaN.

        A picture is a path or a PIL image. A file that can't be read is a DataError that names it.
        """
        return self.vision(pictures), self.text(texts)

    def vision(self, pictures: Sequence[Path | str | Image | None]) -> Array:
        """Return the pictures' embeddings alone, (n, vision_size)."""
        keys = [None if picture is None else _picture_key(picture) for picture in pictures]
        return self._cached("vision", keys, lambda rows: self.see([_open(pictures[row]) for row in rows]))

    def text(self, texts: Sequence[str | None]) -> Array:
        """Return the texts' embeddings alone, (n, text_size)."""
        for text in texts:
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise DataError(f"A description is {text!r}", hint="give a text, or None when there is none")
        keys = [None if text is None else sha256(text.encode()).hexdigest() for text in texts]
        return self._cached("text", keys, lambda rows: self.read([str(texts[row]) for row in rows]))

    def _cached(self, kind: str, keys: list[str | None], compute: Callable[[list[int]], Array]) -> Array:
        size = self.vision_size if kind == "vision" else self.text_size
        folder = paths.work() / "scene" / sha256(self.identity.encode()).hexdigest()[:16] / kind
        out = np.full((len(keys), size), np.nan, np.float32)
        wanted: dict[str, int] = {}  # each content once, however often it is asked for
        for row, key in enumerate(keys):
            if key is None:
                continue
            known = recall(folder / key, size)
            if known is None:
                wanted.setdefault(key, row)
            else:
                out[row] = known
        owner = {row: key for key, row in wanted.items()}
        fresh: dict[str, Array] = {}
        for row, embedding in in_batches(compute, list(owner), batch=self.batch):
            fresh[owner[row]] = embedding
            keep(folder / owner[row], embedding)
        for at, key in enumerate(keys):
            if key in fresh:
                out[at] = fresh[key]
        return out


def scene_encoder(name: str = "light", *, revision: str = "", batch: int = 8) -> SceneEncoder:
    """Return the encoder `name`: "light", or a Qwen-VL model's folder or hub name (which needs a `revision`)."""
    if name == "light":
        return LightScene()
    from smellkit.odour.qwen import QwenScene

    return QwenScene(name, revision=revision, batch=batch)


def in_batches(compute: Callable[[list[int]], Array], rows: list[int], *, batch: int) -> Iterator[tuple[int, Array]]:
    """Yield each row with its embedding; out of memory halves the batch once and says so, then fails clearly."""
    done, size = 0, max(batch, 1)
    while done < len(rows):
        part = rows[done : done + size]
        try:
            embeddings = compute(part)
        except (MemoryError, RuntimeError) as why:
            if not _out_of_memory(why):
                raise
            if size < batch or size == 1:
                raise SmellkitError(
                    f"Out of memory with {size} sample{'s' * (size > 1)} at once",
                    hint="a smaller batch, smaller pictures or a smaller model",
                ) from why
            size = (size + 1) // 2
            warnings.warn(f"Out of memory with {batch} at once: going on with {size}.", RuntimeWarning, stacklevel=2)
            continue
        yield from zip(part, embeddings, strict=True)
        done += len(part)


def keep(path: Path, embedding: Array) -> None:
    """Write an embedding and the sha256 of its bytes, by rename: nobody ever sees half of it."""
    body = np.ascontiguousarray(embedding, dtype=np.float32).tobytes()
    with paths.replacing(path) as part:
        part.write_bytes(sha256(body).digest() + body)


def recall(path: Path, size: int) -> Array | None:
    """Return the kept embedding, or None when there is none, or when it is damaged or of another size."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    if len(body) != 4 * size or sha256(body).digest() != digest:
        return None
    return np.frombuffer(body, np.float32)


class LightScene(SceneEncoder):
    """The light default: colour and texture statistics of the picture, hashed letters and words of the text.

    It needs no download and takes milliseconds, and it understands nothing: two words are alike when their letters
    are, two pictures when their colours and edges are. For meaning, use `QwenScene`.
    """

    identity = "light-2"
    vision_size = 177
    text_size = 256

    def see(self, pictures: list[Image]) -> Array:
        return np.stack([picture_statistics(picture) for picture in pictures])

    def read(self, texts: list[str]) -> Array:
        return np.stack([hashed_text(text, size=self.text_size) for text in texts])


def picture_statistics(picture: Image, *, side: int = 96) -> Array:
    """Describe an RGB picture by 177 numbers: colours (72), their layout (27), edges (72) and roughness (6)."""
    small = picture.convert("RGB").resize((side, side))
    hsv = np.asarray(small.convert("HSV"), np.float32) / 255
    rgb = np.asarray(small, np.float32) / 255
    hue, saturation, value = (hsv[..., i].ravel() for i in range(3))
    colours, _ = np.histogramdd(
        (hue, saturation, value), bins=(12, 3, 2), range=((0, 1), (0, 1.0001), (0, 1.0001)), weights=None
    )
    cells = rgb.reshape(3, side // 3, 3, side // 3, 3).mean(axis=(1, 3))  # 3 x 3 cells
    grey = rgb.mean(axis=2)
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    turn = (np.arctan2(down, right) % np.pi) / np.pi
    edges = np.zeros((3, 3, 8), np.float32)
    third = np.minimum(np.arange(side) * 3 // side, 2)
    np.add.at(
        edges,
        (np.repeat(third, side), np.tile(third, side), np.minimum((turn.ravel() * 8).astype(int), 7)),
        strength.ravel(),
    )
    edges /= edges.sum(axis=2, keepdims=True) + 1e-3
    roughness = [
        float(np.abs(np.diff(grey[::step, ::step], axis=axis)).mean()) for step in (1, 3, 8) for axis in (0, 1)
    ]
    share = np.sqrt(colours.ravel() / colours.sum())
    return np.concatenate([share, cells.ravel(), edges.ravel(), 4 * np.array(roughness)]).astype(np.float32)


def hashed_text(text: str, *, size: int = 256) -> Array:
    """Describe a text by its words, word stems and letter triples, hashed with a sign into `size` numbers, length 1."""
    out = np.zeros(size, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        padded = f"<{word}>"
        for piece in (word, word[:5], *(padded[i : i + 3] for i in range(len(padded) - 2))):
            code = zlib.crc32(piece.encode())
            out[code % size] += 1 if code >> 31 else -1
    out = np.sign(out) * np.sqrt(np.abs(out))
    return out / (np.linalg.norm(out) + 1e-9)


def _open(picture: Any) -> Image:
    if isinstance(picture, (str, Path)):
        from smellkit.checks import read_picture

        return read_picture(Path(picture))
    return picture.convert("RGB")


def _picture_key(picture: Any) -> str:
    if isinstance(picture, (str, Path)):
        try:
            return sha256(Path(picture).read_bytes()).hexdigest()
        except OSError as why:
            raise DataError(f"Could not read the picture {picture}: {why}", hint="check the path") from why
    return sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def _out_of_memory(why: BaseException) -> bool:
    text = str(why).lower()
    return isinstance(why, MemoryError) or "out of memory" in text or "can't allocate memory" in text
