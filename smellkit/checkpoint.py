"""Trained weights as safetensors beside a readable manifest and a card made from it; a pickle is never read."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from smellkit import __version__, paths
from smellkit.checks import read_json
from smellkit.checks.report import disguise
from smellkit.errors import DataError, WeightsError

FILE, MANIFEST = "weights.safetensors", "manifest.json"
AGAIN = "train it again, or restore the folder with `git checkout`"
Network = TypeVar("Network", bound=nn.Module)


def save(folder: Path, tensors: Mapping[str, Tensor], manifest: dict[str, Any]) -> Path:
    """Write `tensors` and `manifest` into `folder`, and of what has a kind a card (README.md); return the folder.

    Each by rename. The manifest gets the version of the kit and the sha256 of the weights, so that a mixed pair is
    noticed on loading.
    """
    from safetensors.torch import save as packed

    folder = Path(folder)
    with paths.replacing(folder / FILE) as part:
        part.write_bytes(packed({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))
    described = {**manifest, "smellkit": __version__, "sha256": sha256((folder / FILE).read_bytes()).hexdigest()}
    paths.write_json(folder / MANIFEST, described)
    if described.get("kind"):
        paths.write_text(folder / "README.md", card(described))
    return folder


def card(manifest: Mapping[str, Any]) -> str:
    """A model card as markdown with metadata, for people and for Hugging Face's hub, by the template card.md.j2."""
    from jinja2 import Template

    text = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    return Template(text, trim_blocks=True, keep_trailing_newline=True).render(manifest)


def load(folder: Path, *, kind: str = "", made_by: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the manifest of `folder`.

    WeightsError when a file is absent, empty, truncated, something else than safetensors (a Git LFS pointer, a page),
    not the one in the manifest, of another `kind` than is wanted, or holds NaN or infinity; `made_by` is the command
    that makes it, for the hint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    file, again = Path(folder) / FILE, made_by or AGAIN
    described = manifest(folder, made_by=made_by)
    if kind and described.get("kind") != kind:
        raise WeightsError(f"{folder} holds weights of kind {described.get('kind')!r}", hint=f"--weights {kind}")
    if not file.is_file():
        raise WeightsError(f"There is no {file}", hint=again)
    data = file.read_bytes()
    if not_data := disguise(data):
        raise WeightsError(f"{file} is {not_data[0]}", hint=not_data[1])
    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, RecursionError) as why:
        raise WeightsError(f"{file} ({len(data)} bytes) is not a safetensors file: {why}", hint=again) from why
    if described.get("sha256") != sha256(data).hexdigest():
        raise WeightsError(f"{file} is not the file that {MANIFEST} describes (sha256 differs)", hint=again)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            index = tuple(torch.nonzero(~torch.isfinite(tensor))[0].tolist())
            what = f"{file}, tensor {name}, {index}: {tensor[index].item()} is no weight"
            raise WeightsError(what, hint=f"the training went astray: {again}")
    return tensors, described


def find(name: str | Path) -> Path:
    """Folder of the weights `name`: a folder that holds some, or else the one of that name in data/weights."""
    folder = Path(name) if (Path(name) / MANIFEST).is_file() else paths.weights() / name
    if not folder.is_dir():
        known = sorted(path.name for path in paths.weights().glob("*/") if path.is_dir())
        raise WeightsError(f"There are no weights {str(name)!r}", hint=f"a folder, or one of {', '.join(known)}")
    return folder


def manifest(folder: Path, *, made_by: str = "") -> dict[str, Any]:
    """Return what the manifest of `folder` says, without loading the weights."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise WeightsError(f"There is no {path}", hint=made_by or AGAIN)
    try:
        return read_json(path)
    except DataError as why:
        raise WeightsError(f"{path} is not a valid manifest: {why.what}", hint=why.hint or made_by or AGAIN) from why


def restore(model: Network, folder: Path) -> Network:
    """The `model` with the weights in `folder`, ready to answer; see `fill`."""
    return fill(model, load(folder)[0], where=str(folder)).eval()


def fill(model: Network, tensors: Mapping[str, Tensor], *, where: str = "these weights") -> Network:
    """Load `tensors` into `model`, all of them or none, and return the model.

    WeightsError lists the first five tensors that are missing, unknown or of another shape.
    """
    own, here = ({name: tuple(tensor.shape) for name, tensor in all.items()} for all in (model.state_dict(), tensors))
    wrong = [
        f"{name}: {here.get(name, 'missing')} in the file, {own.get(name, 'unknown')} in the model"
        for name in own | here
        if own.get(name) != here.get(name)
    ]
    if wrong:
        where = f"{FILE} and {MANIFEST} in {where}" if Path(where).is_dir() else where
        what = f"{where} do not fit {type(model).__name__} of smellkit {__version__}:"
        wrong = wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])
        hint = "build the model with the options in the manifest, or train it again"
        raise WeightsError("\n  ".join([what, *wrong]), hint=hint)
    model.load_state_dict(dict(tensors))
    return model


def fingerprint(model: nn.Module) -> str:
    """sha256 over names and values of every parameter and buffer: equal before and after means frozen."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
