"""`smellkit site`: pages from executed notebooks, by Quarto where it is found and by the preview where it is not.

    site/*.qmd, index.qmd, _quarto.yml --+
    data/runs/notebooks/<set>/*.ipynb  --+--> data/work/site (staging, ignored) --> _site
    site/images, site/results/*.json   --+

Nothing tracked by git is written, unless `publish` is asked to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smellkit import batch, paths
from smellkit.errors import DataError, OptionError, SmellkitError
from smellkit.study import published as results

TROUBLE = re.compile(r"\bwarn(ing)?\b|\berror\b|unable to resolve|unresolved|could not find", re.IGNORECASE)
PANEL = "images/panel.png"  # what a page shows in the place of widgets, which would fetch scripts from a network
PUBLISHED = "published"


@dataclass(frozen=True)
class Built:
    """A built site: its first page, who made it, the warnings, and the whole log."""

    index: Path
    by: str
    log: Path
    warnings: list[str] = field(default_factory=list)


def build(
    source: str = "", *, home: Path = paths.HOME, quarto: bool = True, say: Callable[[str], object] = lambda text: None
) -> Built:
    """Build the site in `home`/_site from the executed notebooks of the set `source`, by default the last one run.

    `published` stands for site/notebooks. `quarto` off makes the preview even where Quarto is installed.
    """
    stage = paths.work() / "site"
    notes, warnings = assemble(executed(source, home=home), stage, home=home)
    command = find_quarto() if quarto else None
    if command:
        by, trouble, log = "Quarto", *_quarto(command, stage)
    else:
        from smellkit import preview

        by, trouble = "preview", preview.render(stage, stage / "_site")
        log = "\n".join(f"WARNING: {line}" for line in trouble)
        say("Quarto is not " + ("found" if quarto else "wanted") + ": a preview of the same pages, by nbconvert.")
    warnings += trouble
    for note in notes:
        say(note)
    lines = [f"made by {by}", *notes, *(f"WARNING: {line}" for line in warnings), "", log]
    log_file = paths.write_text(paths.work() / "site.log", "\n".join(lines).rstrip() + "\n")
    out = home / "_site"
    old = home / ".quarto" / "old-site"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        old.parent.mkdir(exist_ok=True)
        out.replace(old)
    shutil.move(stage / "_site", out)
    shutil.rmtree(old, ignore_errors=True)
    return Built(out / "index.html", by, log_file, warnings)


def executed(source: str, *, home: Path = paths.HOME) -> Path:
    """Return the folder of the executed notebooks of the set `source`: the last one run, or else the published ones."""
    published = home / "site" / "notebooks"
    sets = {path.name: path for path in (paths.runs() / "notebooks").glob("*") if any(path.glob("*.ipynb"))}
    if any(published.glob("*.ipynb")):
        sets[PUBLISHED] = published
    if not sets:
        raise DataError("No notebook has been executed yet", hint="`smellkit run`")
    if not source:
        fresh = {name: path for name, path in sets.items() if name != PUBLISHED} or sets
        return max(fresh.values(), key=lambda path: max(file.stat().st_mtime for file in path.glob("*.ipynb")))
    if source not in sets:
        raise OptionError(f"There are no executed notebooks {source!r}", hint="one of " + ", ".join(sorted(sets)))
    return sets[source]


def assemble(notebooks: Path, stage: Path, *, home: Path = paths.HOME) -> tuple[list[str], list[str]]:
    """Lay out everything the site is made of in `stage`; return what a reader may want to know, and warnings."""
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "site" / "notebooks").mkdir(parents=True)
    for name in ("index.qmd", *(path.relative_to(home).as_posix() for path in (home / "site").glob("*.*"))):
        if (home / name).is_file():
            shutil.copy2(home / name, stage / name)
    if (home / "site" / "images").exists():
        shutil.copytree(home / "site" / "images", stage / "site" / "images")
    warnings = []
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        book = json.loads(path.read_text(encoding="utf-8"))
        if _still(book) and not (home / "site" / PANEL).exists():
            warnings.append(f"{path.name}: there is no site/{PANEL} to show in the place of its widgets")
        for cell in book["cells"]:  # notebooks/ and site/notebooks/ see site/ from different places
            cell["source"] = [line.replace("](../site/", "](../") for line in _lines(cell["source"])]
        (stage / "site" / "notebooks" / path.name).write_text(json.dumps(book, ensure_ascii=False), encoding="utf-8")
    config = yaml.safe_load((home / "_quarto.yml").read_text(encoding="utf-8"))
    absent: list[str] = []
    for part in ("navbar", "sidebar"):
        for key, items in config["website"][part].items():
            if isinstance(items, list):
                config["website"][part][key] = _present(items, stage, absent)
    (stage / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    index = stage / "index.qmd"
    found = results.read(home / "site" / "results")
    index.write_text(index.read_text(encoding="utf-8").replace("<!-- results -->", results.summary(found)), "utf-8")
    names = ", ".join(dict.fromkeys(Path(name).stem for name in absent))
    return ([f"Left out, since not executed: {names}"] if absent else []), warnings


def publish(source: str = "", *, home: Path = paths.HOME) -> int:
    """Copy the executed notebooks of `source` to site/notebooks, and the results to the README; return how many.

    Paths of this machine are taken out.
    """
    folder, out = executed(source, home=home), home / "site" / "notebooks"
    if folder == out:
        raise OptionError(
            "These notebooks are the published ones", hint="--from full, after `smellkit run --profile full`"
        )
    names = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    for path in names:
        text = path.read_text(encoding="utf-8")
        for there, here in {**_data(path), str(home): ".", str(Path.home()): "~"}.items():
            text = text.replace(there, here) if len(there) > 5 else text
        paths.write_text(out / path.name, text)
    front = home / "README.md"
    if front.exists():
        found = results.read(home / "site" / "results")
        paths.write_text(front, results.readme(front.read_text(encoding="utf-8"), found))
    return len(names)


def find_quarto() -> list[str] | None:
    """Return the command of a Quarto that answers: QUARTO_PATH, on the PATH, or from the quarto-cli package."""
    name = "quarto.exe" if os.name == "nt" else "quarto"
    given = Path(os.environ["QUARTO_PATH"]) if os.environ.get("QUARTO_PATH") else None
    places = [given, given and given / name, given and given / "bin" / name, shutil.which("quarto")]
    places.append(Path(sysconfig.get_path("scripts")) / name)
    for place in places:
        if place and Path(place).is_file():
            try:
                subprocess.run([str(place), "--version"], capture_output=True, timeout=60, check=True)
            except (OSError, subprocess.SubprocessError):
                continue
            return [str(place)]
    return None


def _quarto(command: list[str], stage: Path) -> tuple[list[str], str]:
    """Render with Quarto; return its warnings and its log. It exits with 0 on broken links: the log tells."""
    environment = os.environ | {"QUARTO_PYTHON": sys.executable, "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "render", str(stage)], capture_output=True, text=True, env=environment, timeout=1800, check=False
    )
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode:
        paths.write_text(paths.work() / "site.log", log)
        last = "\n  ".join(log.strip().splitlines()[-8:])
        raise SmellkitError(
            f"Quarto stopped with {done.returncode}:\n  {last}", hint=f"read {paths.work() / 'site.log'}"
        )
    return [line.strip() for line in log.splitlines() if TROUBLE.search(line)], log


def _still(book: dict[str, Any]) -> bool:
    """Put the panel's picture in the place of widgets in `book`; return whether there were any."""
    book["metadata"].pop("widgets", None)
    found = False
    for cell in book["cells"]:
        kept = []
        for output in cell.get("outputs", []):
            if batch.WIDGET not in output.get("data", {}):
                kept.append(output)
            elif batch.is_bar(output):
                continue
            elif not found:
                found = True
                words = "The panel, as it looks in JupyterLab. It works there: run this notebook to use it."
                picture = f"![{words}](../{PANEL})"
                kept.append({"output_type": "display_data", "metadata": {}, "data": {"text/markdown": picture}})
        if "outputs" in cell:
            cell["outputs"] = kept
    return found


def _lines(source: str | list[str]) -> list[str]:
    return source.splitlines(keepends=True) if isinstance(source, str) else source


def _present(items: list[Any], stage: Path, absent: list[str]) -> list[Any]:
    """The navigation without pages that are not there, and without sections that would be empty."""
    kept = []
    for item in items:
        if isinstance(item, dict) and "contents" in item:
            item = item | {"contents": _present(item["contents"], stage, absent)}
            if item["contents"]:
                kept.append(item)
            continue
        name = item if isinstance(item, str) else item.get("href", "")
        if "://" in name or (stage / name).exists():
            kept.append(item)
        else:
            absent.append(name)
    return kept


def _data(path: Path) -> dict[str, str]:
    """The data folder that a notebook was run on, and the name that it has for everyone."""
    made = batch.made_from(path)
    data = str(made.get("parameters", {}).get("data", ""))
    return {data: f"data/raw/{Path(data).name}"} if data else {}
