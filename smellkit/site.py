"""`smellkit site`: pages from executed notebooks, by Quarto, or by nbconvert where there is no Quarto.

    site/*.qmd, index.qmd, _quarto.yml --+
    data/runs/notebooks/<set>/*.ipynb  --+--> data/work/site (staging, ignored) --> _site
    site/images                        --+

Nothing tracked by git is written, unless `publish` is asked to. The preview by nbconvert has the same pages,
navigation, links and pictures; site/preview holds its template and look. Search and cross-references are Quarto's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smellkit import batch, paths
from smellkit.errors import DataError, OptionError, SmellkitError
from smellkit.preview import preview

TROUBLE = re.compile(r"\bwarn(ing)?\b|\berror\b|unable to resolve|unresolved|could not find", re.IGNORECASE)
KEPT = "site.json"  # in the work folder: what the site was made of
NUMBERED = "[0-9][0-9]_*.ipynb"
PANEL = "images/panel.png"  # what a page shows in the place of widgets, which would fetch scripts from a network
FOLD = '<details class="solution"><summary>Solution</summary>'
CAPTION = "The panel, as it looks in JupyterLab. It works there: run this notebook to use it."


@dataclass(frozen=True)
class Built:
    """A built site: its first page, who made it, the warnings, and the whole log."""

    index: Path
    by: str
    log: Path
    warnings: list[str] = field(default_factory=list)


def made_of(source: str = "", *, quarto: bool = True, home: Path = paths.HOME) -> str:
    """What is another text once anything has changed that the pages of the set `source` are made of."""
    data, folder = home / "data", executed(source, home=home)
    folders = [folder, home / "site", data / "weights", data / "noses", home / "smellkit"]
    files = [home / "index.qmd", home / "_quarto.yml", data / "README.md", data / "croissant.json"]
    states = [batch.state_of(place) for place in [*folders, *files]]
    return json.dumps([folder.as_posix(), *map(str, _quartos() if quarto else []), *states])


def kept(key: str) -> Built | None:
    """The site that was built from the same (`made_of`), if it is still there."""
    known = paths.read_json(paths.work() / KEPT)
    index = Path(known.get("index", "nowhere"))
    if known.get("key") != key or not index.exists():
        return None
    return Built(index, known["by"], Path(known["log"]), known["warnings"])


def build(
    source: str = "",
    *,
    key: str = "",
    home: Path = paths.HOME,
    quarto: bool = True,
    parts: Mapping[str, str] | None = None,
    pages: Mapping[str, str] | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> Built:
    """Build the site in `home`/_site from the executed notebooks of the set `source`, by default the last one run.

    `published` stands for site/notebooks. `quarto` off makes the preview even where Quarto is installed. `parts` maps
    a name to the text that takes the place of its mark, `<!-- name -->`, on the first page. `key` is what `kept` knows
    the site by.
    """
    stage, out = paths.work() / "site", home / "_site"
    command = find_quarto() if quarto else None
    notes, warnings = assemble(
        executed(source, home=home), stage, home=home, parts=parts or {}, raw=bool(command), pages=pages
    )
    if command:
        by, (trouble, log) = "Quarto", _quarto(command, stage)
    else:
        by, trouble, log = "preview", preview(stage, stage / "_site"), ""
        notes.insert(0, f"Quarto is not {'found' if quarto else 'wanted'}: a preview of the same pages, by nbconvert.")
    for note in notes:
        progress(note)
    lines = [f"made by {by}", *notes, *(f"WARNING: {line}" for line in warnings + trouble), "", log]
    log_file = paths.write_text(paths.work() / "site.log", "\n".join(lines).rstrip() + "\n")
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage / "_site", out)
    built = Built(out / "index.html", by, log_file, warnings + trouble)
    told = {"index": str(built.index), "by": by, "log": str(log_file), "warnings": built.warnings}
    paths.write_json(paths.work() / KEPT, {"key": key, **told})
    return built


def executed(source: str, *, home: Path = paths.HOME) -> Path:
    """Return the folder of the executed notebooks of the set `source`: the last one run, or else the published ones."""
    sets = {path.name: path for path in (paths.runs() / "notebooks").glob("*")} | {"published": home / "site/notebooks"}
    sets = {name: path for name, path in sets.items() if any(path.glob("*.ipynb"))}
    if not sets:
        raise DataError("No notebook has been executed yet", hint="`smellkit run`")
    if source not in ("", *sets):
        raise OptionError(f"There are no executed notebooks {source!r}", hint="one of " + ", ".join(sorted(sets)))
    made = {name: max(file.stat().st_mtime for file in path.glob("*.ipynb")) for name, path in sets.items()}
    return sets[source or max(made, key=lambda name: (name != "published", made[name]))]


def publish(source: str = "", *, home: Path = paths.HOME, parts: Mapping[str, str] | None = None) -> int:
    """Copy the executed notebooks of `source` to site/notebooks, put `parts` into the README; return how many.

    Paths of this machine are taken out.
    """
    folder, out = executed(source, home=home), home / "site" / "notebooks"
    if folder == out:
        hint = "--from full, after `smellkit run --profile full`"
        raise OptionError("These notebooks are the published ones", hint=hint)
    names = sorted(folder.glob(NUMBERED))
    for path in names:
        text = path.read_text(encoding="utf-8")
        data = str(batch.made_from(path).get("parameters", {}).get("data", ""))
        for there, here in {data: f"data/raw/{Path(data).name}", str(home): ".", str(Path.home()): "~"}.items():
            text = text.replace(there, here) if len(there) > 5 else text
        paths.write_text(out / path.name, text)
    front = home / "README.md"
    if front.exists():
        paths.write_text(front, fill(front.read_text(encoding="utf-8"), parts or {}))
    return len(names)


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Return `text` with each of `parts` between its marks, `<!-- name -->` and `<!-- /name -->`."""
    for name, part in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not (mark and end):
            raise DataError(f"The README has no <!-- {name} --> and <!-- /{name} --> lines", hint="put them back")
        text = f"{before}{mark}{part}\n{end}{after}"
    return text


def find_quarto() -> list[str] | None:
    """Return the command of a Quarto that answers: QUARTO_PATH, on the PATH, or from the quarto-cli package."""
    for place in _quartos():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([str(place), "--version"], capture_output=True, timeout=60, check=True)
            return [str(place)]
    return None


def _quartos() -> list[Path]:
    """The files that may be Quarto, first choice first."""
    name = "quarto.exe" if os.name == "nt" else "quarto"
    given = os.environ.get("QUARTO_PATH")
    places = [Path(given), Path(given) / name, Path(given) / "bin" / name] if given else []
    places += [Path(shutil.which("quarto") or ""), Path(sysconfig.get_path("scripts")) / name]
    return [place for place in places if place.is_file()]


def _quarto(command: list[str], stage: Path) -> tuple[list[str], str]:
    """Render with Quarto; return its warnings and its log. It exits with 0 on broken links: the log tells."""
    environment = os.environ | {"QUARTO_PYTHON": sys.executable, "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "render", str(stage)], capture_output=True, text=True, env=environment, timeout=1800, check=False
    )
    log = batch.COLOURS.sub("", done.stdout + done.stderr)
    if done.returncode:
        file = paths.write_text(paths.work() / "site.log", log)
        last = "\n  ".join(log.strip().splitlines()[-8:])
        raise SmellkitError(f"Quarto stopped with {done.returncode}:\n  {last}", hint=f"read {file}")
    return [line.strip() for line in log.splitlines() if TROUBLE.search(line)], log


# What both renderers get


def assemble(
    notebooks: Path,
    stage: Path,
    *,
    home: Path,
    parts: Mapping[str, str],
    raw: bool,
    pages: Mapping[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    """Lay out everything the site is made of in `stage`; return what a reader may want to know, and warnings.

    `pages` are more pages for site/, file name -> markdown. With `raw`, HTML in outputs becomes a raw block of Quarto's
    markdown: as HTML it would load scripts from a network.
    """
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(home / "site", stage / "site", ignore=shutil.ignore_patterns("notebooks", "preview", "try"))
    (stage / "site" / "notebooks").mkdir()
    if (home / "site" / "try").exists():
        stage_try(stage / "site" / "try", home=home)
    warnings = []
    for path in sorted(notebooks.glob(NUMBERED)):
        book = json.loads(path.read_text(encoding="utf-8"))
        if _stage(book, raw=raw) and not (home / "site" / PANEL).exists():
            warnings.append(f"{path.name}: there is no site/{PANEL} to show in the place of its widgets")
        (stage / "site" / "notebooks" / path.name).write_text(json.dumps(book, ensure_ascii=False), encoding="utf-8")
    shutil.copy2(home / "index.qmd", stage)
    if (described := home / "data" / "croissant.json").exists():
        shutil.copy2(described, stage / "site")
    for path in [stage / "index.qmd", *(stage / "site").glob("*.qmd")]:
        text = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            text = text.replace(f"<!-- {name} -->", part)
        path.write_text(text, encoding="utf-8")
    for file, text in (pages or {}).items():
        paths.write_text(stage / "site" / file, text)
    config = yaml.safe_load((home / "_quarto.yml").read_text(encoding="utf-8"))
    for setting, needs in {"site-url": ("site-url", "open-graph"), "repo-url": ("repo-url",)}.items():
        if not config["website"].get(setting):
            config["website"] = {key: value for key, value in config["website"].items() if key not in needs}
    absent: list[str] = []
    for bar in ("navbar", "sidebar", "page-footer"):
        for key, items in config["website"][bar].items():
            if isinstance(items, list):
                config["website"][bar][key] = _present(items, stage, absent)
    (stage / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return [f"Left out, since not executed: {', '.join(dict.fromkeys(absent))}"] if absent else [], warnings


def stage_try(out: Path, *, home: Path = paths.HOME) -> None:
    """Lay out what the page site/try.qmd fetches: its scripts, the shipped weights, a simulated recording a sample."""
    from smellkit.odour.scents import category

    shutil.copytree(home / "site" / "try", out)
    for name in ("odour", "odour-same-session"):
        shutil.copy2(paths.weights() / name / "weights.safetensors", out / f"{name}.safetensors")
        manifest = json.loads((paths.weights() / name / "manifest.json").read_text(encoding="utf-8"))
        manifest["categories"] = {substance: category(substance) for substance in manifest["classes"]}
        paths.write_json(out / f"{name}.json", manifest)
    for sample in ("banana", "garlic", "strawberry", "mint"):
        files = (paths.sample() / "smellnet" / "base" / "testing" / sample).glob("*.csv")
        shutil.copy2(min(files), out / f"{sample}.csv")


def _stage(book: dict[str, Any], *, raw: bool) -> bool:
    """Turn an executed notebook into what a page shows; return whether a picture took the place of its widgets.

    Outputs that are all markdown become cells, for the headings in them.
    """
    book["metadata"].pop("widgets", None)
    data = {"text/markdown": f"![{CAPTION}](../{PANEL})"}
    picture = [{"output_type": "display_data", "metadata": {}, "data": data}]  # one for all widgets
    cells = []
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"]).replace("](../site/", "](../")  # seen from site/notebooks
        solution = raw and "solution" in cell["metadata"].get("tags", [])  # the preview's template folds it by itself
        cells += [_markdown(f"{cell['id']}-fold", FOLD), cell] if solution else [cell]
        outputs = []
        for output in cell.get("outputs", []):
            if batch.WIDGET not in output.get("data", {}):
                outputs.append(output)
            elif picture and not batch.is_bar(output):
                outputs.append(picture.pop())
        words = ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]
        if outputs and all(words):
            cells += [_markdown(f"{cell['id']}-{n}", text) for n, text in enumerate(words)]
            outputs = []
        for output in outputs if raw else []:
            if html := "".join(output.get("data", {}).get("text/html", "")):
                output["data"] = {"text/markdown": f"```{{=html}}\n{html}\n```"}
        if "outputs" in cell:
            cell["outputs"] = outputs
        cells += [_markdown(f"{cell['id']}-end", "</details>")] if solution else []
    book["cells"] = cells
    return not picture


def _markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "id": name, "source": text}


def _present(items: list[Any], stage: Path, absent: list[str]) -> list[Any]:
    """The entries of a bar whose pages are there; the names of the others go to `absent`."""
    kept = []
    for item in items:
        if isinstance(item, dict) and "contents" in item:
            contents = _present(item["contents"], stage, absent)
            kept += [item | {"contents": contents}] if contents else []
            continue
        name = item if isinstance(item, str) else item.get("href", "")
        if "://" in name or (stage / name).exists():
            kept.append(item)
        else:
            absent.append(Path(name).stem)
    return kept
