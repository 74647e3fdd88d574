"""The architecture, held by a test, file by file: imports point down, in no circle, and no system knows another."""

import ast
import functools
from pathlib import Path

import pytest

import smellkit

HOME = Path(smellkit.__file__).parent
LAYERS = [  # from the ground up; CONTRIBUTING shows the same picture
    {"errors", "paths"},
    {"task", "windows", "checks", "cache", "cluster", "fetch", "options", "noses", "sensors", "device"},
    {"train", "runs", "checkpoint", "export"},
    {"odour", "gcode", "plume"},
    {"plots", "notebook", "panel", "plan", "batch", "site", "doctor"},
    {"study", "simulate"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SYSTEMS = LAYERS[3]
MODELS = [  # networks, and what else learns
    "odour.encoder",
    "odour.features",
    "odour.mixture",
    "odour.experts",
    "odour.scene_encoder",
    "odour.senses",
    "gcode.decoder",
    "gcode.hmm",
    "gcode.window_decoder",
    "plume.layers",
    "plume.models",
    "plume.plumenet",
]


def module(path: Path) -> str:
    """`smellkit/odour/live.py` -> "odour.live"; a package's `__init__` is the package."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


FILES = {module(path): path for path in sorted(HOME.rglob("*.py")) if path != HOME / "__init__.py"}


def imports(path: Path) -> set[str]:
    """Modules of the kit that a file imports, inside functions too, at the depth at which they are files."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.removeprefix("smellkit.") for name in names if name.startswith("smellkit.")}
    return {name for name in inside if name in FILES} - {module(path)}


@functools.cache
def edges() -> dict[str, set[str]]:
    """What each file imports: when it is asked for, since every worker collects this file."""
    return {name: imports(path) for name, path in FILES.items()}


def pairs() -> list[tuple[str, str]]:
    """(who imports, what is imported)."""
    return [(name, other) for name, others in edges().items() for other in others]


def test_no_import_hides_from_these_tests():
    """As `from . import x` would, or the name of a study in a string that something else resolves."""
    for name, path in FILES.items():
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level], path
        words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        above = layer(name) in ("cli", "study", "simulate")
        assert above or not [word for word in words if word.startswith(("smellkit.study", "smellkit.simulate"))], path


def test_what_is_imported_exists():
    """Inside functions too, which nothing else may run: the extra that they need is not installed everywhere."""
    nodes = [(name, node) for name, path in FILES.items() for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    from_kit = [(a, b) for a, b in nodes if isinstance(b, ast.ImportFrom) and (b.module or "").startswith("smellkit.")]
    assert not [(a, b.module) for a, b in from_kit if b.module.removeprefix("smellkit.") not in FILES]


def layer(name: str) -> str:
    return name.split(".")[0]


def test_every_module_has_a_layer():
    assert {layer(name) for name in FILES} <= set(RANK)


def test_the_picture_of_the_house_is_this_one():
    text = (HOME.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = next(part for part in text.split("```") if part.startswith("\ncli ")).strip().splitlines()
    shown = [set(line[:72].replace("/", " ").split()) for line in reversed(lines)]
    assert shown == [names - {"__main__"} for names in LAYERS]


def test_imports_point_downwards():
    assert not [(a, b) for a, b in pairs() if RANK[layer(b)] > RANK[layer(a)]]


def test_a_system_never_imports_another():
    assert not [(a, b) for a, b in pairs() if layer(a) in SYSTEMS and layer(b) in SYSTEMS - {layer(a)}]


def test_what_answers_never_imports_what_measures_or_invents():
    above = {"study", "simulate", "cli"}
    assert not [(a, b) for a, b in pairs() if layer(b) == "study" and layer(a) not in above]
    assert not [(a, b) for a, b in pairs() if layer(b) == "simulate" and layer(a) not in above]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_imports_no_device_and_no_panel(name):
    seen, todo = set(), {name}
    while todo:
        one = todo.pop()
        seen.add(one)
        todo |= edges()[one] - seen
    assert not {one for one in seen if layer(one) in {"device", "panel", "study", "simulate"}}


def test_no_imports_go_in_a_circle():
    order: list[str] = []
    waiting = dict(edges())
    while ready := [name for name, names in waiting.items() if not names - set(order)]:
        order += ready
        for name in ready:
            del waiting[name]
    assert not waiting, f"among {sorted(waiting)}"


def test_a_variable_is_called_after_what_it_holds():
    """Not `found`, and not `told`: everything is that."""
    for path in FILES.values():
        names = {getattr(node, "id", getattr(node, "arg", "")) for node in ast.walk(ast.parse(path.read_text("utf-8")))}
        assert not names & {"found", "told"}, path
