"""The architecture, held by a test: imports point downwards, and a system never knows another."""

import ast
from pathlib import Path

import smellkit

HOME = Path(smellkit.__file__).parent
LAYERS = [
    {"errors", "paths"},
    {
        "task",
        "windows",
        "checks",
        "cache",
        "losses",
        "metrics",
        "fetch",
        "plots",
        "tables",
        "options",
        "device",
    },
    {"runs", "weights", "train", "sweep"},
    {"odour", "gcode", "plume"},
    {"notebook", "batch", "parameters", "site", "preview", "pages", "results", "panel", "doctor"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names} | {"": 0}
SYSTEMS = LAYERS[3]


def imports(path: Path):
    """Names right below `smellkit` that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("smellkit."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "smellkit":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [a.name for a in node.names if not a.name.startswith("__")]


FILES = {
    path: path.relative_to(HOME).with_suffix("").parts[0]
    for path in HOME.rglob("*.py")
    if path.parent != HOME or path.name != "__init__.py"
}


def test_every_module_has_a_layer():
    assert set(FILES.values()) <= set(RANK), set(FILES.values()) - set(RANK)


def test_imports_point_downwards():
    wrong = [
        (str(path.relative_to(HOME)), name)
        for path, own in FILES.items()
        for name in imports(path)
        if RANK[name] > RANK[own]
    ]
    assert not wrong


def test_a_system_never_imports_another():
    wrong = [
        (str(path.relative_to(HOME)), name)
        for path, own in FILES.items()
        if own in SYSTEMS
        for name in imports(path)
        if name in SYSTEMS - {own}
    ]
    assert not wrong
