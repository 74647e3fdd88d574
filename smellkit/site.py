"""`smellkit site`: pages from executed notebooks, by Quarto, or by nbconvert where there is no Quarto.

    site/*.qmd, index.qmd, _quarto.yml --+
    data/runs/notebooks/<set>/*.ipynb  --+--> data/work/site (staging, ignored) --> _site
    site/images                        --+

Nothing tracked by git is written, unless `publish` is asked to. Without Quarto `preview` makes the same pages with the
same bars; search, cross-references and contents of a page are Quarto's.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smellkit import batch, paths
from smellkit.errors import DataError, OptionError, SmellkitError
from smellkit.plan import NUMBERED, no_iris

TROUBLE = re.compile(r"\bwarn(ing)?\b|\berror\b|unable to resolve|unresolved|could not find", re.IGNORECASE)
SOURCE = re.compile(r'(href="[^":]+)\.(?:qmd|ipynb)(?=["#])')  # a link to what a page of ours is made from
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>')
KEPT = "site.json"  # in the work folder: what the site was made of
FOLD = '<details class="solution"><summary>Solution</summary>'
PANEL = "![The panel, as it looks in JupyterLab. It works there: run this notebook to use it.](../images/panel.png)"


@dataclass(frozen=True)
class Built:
    """A built site: its first page, who made it, the file of the whole log, and the warnings in it."""

    index: str
    by: str
    log: str
    warnings: list[str] = field(default_factory=list)


def build(
    source: str = "",
    *,
    home: Path = paths.HOME,
    quarto: bool = True,
    content: Callable[[], tuple[Mapping[str, str], Mapping[str, str]]] = lambda: ({}, {}),
    progress: Callable[[str], object] = lambda text: None,
) -> Built:
    """Build the site in `home`/_site from the executed notebooks of the set `source`, by default the last one run.

    The site that is there is returned when nothing changed that it was made of. `published` stands for site/notebooks;
    `quarto` off makes the preview even where Quarto is installed. `content()` gives what takes the place of marks,
    `<!-- name -->`, on the pages, name -> text, and more pages in site/, file name -> markdown.
    """
    notebooks, program = executed(source, home=home), _quarto_file() if quarto else ""
    shown = [home / name for name in ("site", "index.qmd", "_quarto.yml", "smellkit", "data/weights", "data/noses")]
    state = batch.state_of(notebooks, *shown, home / "data/README.md", home / "data/croissant.json")
    key, known = f"{notebooks} {program} {state}", paths.read_json(paths.work() / KEPT)
    if known.get("key") == key and Path(known["site"]["index"]).exists():
        return Built(**known["site"])
    stage, out, log, warnings = paths.work() / "site", home / "_site", "", list[str]()
    command = find_quarto() if quarto else ""
    parts, pages = content()
    if absent := assemble(notebooks, stage, home=home, parts=parts, pages=pages, raw=bool(command)):
        progress(f"Left out, since not executed: {', '.join(absent)}")
    if command:
        warnings, log = _quarto(command, stage)
    else:
        preview(stage, stage / "_site")
        progress(f"Quarto is not {'found' if quarto else 'wanted'}: a preview of the same pages, by nbconvert.")
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage / "_site", out)
    file = paths.write_text(paths.work() / "site.log", "\n".join([*(f"WARNING: {line}" for line in warnings), "", log]))
    built = Built(str(out / "index.html"), "Quarto" if command else "preview", str(file), warnings)
    paths.write_json(paths.work() / KEPT, {"key": key, "site": asdict(built)})
    return built


def executed(source: str, *, home: Path = paths.HOME) -> Path:
    """Return the folder of the executed notebooks of the set `source`: the last one run, or else the published ones."""
    folders = [home / "site" / "notebooks", *(paths.runs() / "notebooks").glob("*")]
    made = {path: max((file.stat().st_mtime for file in path.glob("*.ipynb")), default=0.0) for path in folders}
    sets = {path.name: path for path in sorted(folders[1:], key=lambda path: made[path]) if made[path]}
    sets = ({"published": folders[0]} if made[folders[0]] else {}) | sets
    if not sets:
        raise DataError("No notebook has been executed yet", hint="`smellkit run`")
    if source not in ("", *sets):
        raise OptionError(f"There are no executed notebooks {source!r}", hint="one of " + ", ".join(sorted(sets)))
    return sets[source or list(sets)[-1]]


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
    if (front := home / "README.md").exists():
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


def find_quarto() -> str:
    """Return the program of a Quarto that answers, or "": QUARTO_PATH, on the PATH, or from the quarto-cli package."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        program = _quarto_file() or "nowhere"
        subprocess.run([program, "--version"], capture_output=True, timeout=60, check=True)
        return program
    return ""


def _quarto_file() -> str | None:
    places = [os.environ.get("PATH", ""), sysconfig.get_path("scripts")]
    return shutil.which(os.environ.get("QUARTO_PATH") or "quarto", path=os.pathsep.join(places))


def _quarto(program: str, stage: Path) -> tuple[list[str], str]:
    """Render with Quarto; return its warnings and its log. It exits with 0 on broken links: the log tells."""
    environment = os.environ | {"QUARTO_PYTHON": sys.executable, "NO_COLOR": "1"}
    done = subprocess.run(
        [program, "render", str(stage)], capture_output=True, text=True, env=environment, timeout=1800, check=False
    )
    log = batch.COLOURS.sub("", done.stdout + done.stderr)
    if done.returncode:
        file = paths.write_text(paths.work() / "site.log", log)
        last = "\n  ".join(log.strip().splitlines()[-8:])
        raise SmellkitError(f"Quarto stopped with {done.returncode}:\n  {last}", hint=f"read {file}")
    return [line.strip() for line in log.splitlines() if TROUBLE.search(line)], log


# What both renderers get


def assemble(
    notebooks: Path, stage: Path, *, home: Path, parts: Mapping[str, str], pages: Mapping[str, str], raw: bool
) -> list[str]:
    """Lay out everything the site is made of in `stage`; return the pages of its bars that are not there.

    With `raw`, HTML in outputs becomes a raw block of Quarto's markdown: as HTML it would load scripts from a network.
    """
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(home / "site", stage / "site", ignore=shutil.ignore_patterns("notebooks", "preview", "try"))
    if (home / "site" / "try").exists():
        stage_try(stage / "site" / "try", home=home)
    for path in sorted(notebooks.glob(NUMBERED)):
        book = json.loads(path.read_text(encoding="utf-8"))
        paths.write_json(stage / "site" / "notebooks" / path.name, _stage(book, raw=raw))
    for name, folder in {"index.qmd": stage, "data/croissant.json": stage / "site"}.items():
        if (home / name).exists():
            shutil.copy2(home / name, folder)
    for path in [stage / "index.qmd", *(stage / "site").glob("*.qmd")]:
        text = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            text = text.replace(f"<!-- {name} -->", part)
        path.write_text(text, encoding="utf-8")
    for file, text in pages.items():
        paths.write_text(stage / "site" / file, text)
    config, absent = yaml.safe_load((home / "_quarto.yml").read_text(encoding="utf-8")), dict[str, None]()
    website = config["website"]
    for setting, needs in {"site-url": ("site-url", "open-graph"), "repo-url": ("repo-url",)}.items():
        for name in () if website.get(setting) else needs:
            website.pop(name, None)
    for bar, side in {"navbar": "left", "sidebar": "contents", "page-footer": "right"}.items():
        website[bar][side] = _present(website[bar][side], stage, absent)
    (stage / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return list(absent)


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


def _stage(book: dict[str, Any], *, raw: bool) -> dict[str, Any]:
    """Turn an executed notebook into what a page shows.

    A picture takes the place of its widgets, which would fetch scripts from a network; outputs that are all markdown
    become cells, for the headings in them.
    """
    book["metadata"].pop("widgets", None)
    picture = [{"output_type": "display_data", "metadata": {}, "data": {"text/markdown": PANEL}}]  # one for all widgets
    cells: list[dict[str, Any]] = []
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"]).replace("](../site/", "](../")  # seen from site/notebooks
        outputs = [output for output in cell.get("outputs", []) if batch.WIDGET not in output.get("data", {})]
        if picture and len(outputs) < len(cell.get("outputs", [])):
            outputs.append(picture.pop())
        words = ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]
        if cell["cell_type"] == "code":
            cell["outputs"] = [] if all(words) else [_without_html(output) if raw else output for output in outputs]
        around = ["", ""]
        if raw and "solution" in cell["metadata"].get("tags", []):  # the preview's template folds it by itself
            around = [FOLD, "</details>"]
        texts = [around[0], *(words if all(words) else []), around[1]]
        new = [
            {"cell_type": "markdown", "metadata": {}, "id": f"{cell['id']}-{n}", "source": text}
            for n, text in enumerate(texts)
        ]
        cells += [one for one in (new[0], cell, *new[1:]) if one["source"]]
    return book | {"cells": cells}


def _without_html(output: dict[str, Any]) -> dict[str, Any]:
    html = "".join(output.get("data", {}).get("text/html", ""))
    return output | {"data": {"text/markdown": f"```{{=html}}\n{html}\n```"}} if html else output


def _present(items: list[Any], stage: Path, absent: dict[str, None]) -> list[Any]:
    """The entries of a bar whose pages are there; the names of the others go to `absent`."""
    there: list[Any] = []
    for item in items:
        name = item if isinstance(item, str) else item.get("href", "")
        if not name:
            contents = _present(item["contents"], stage, absent)
            there += [item | {"contents": contents}] if contents else []
        elif "://" in name or (stage / name).exists():
            there.append(item)
        else:
            absent[Path(name).stem] = None
    return there


# Where there is no Quarto


def preview(stage: Path, out: Path) -> None:
    """Render the project in `stage` into `out` with nbconvert: its own cells, in the frame of site/preview."""
    config = yaml.safe_load((stage / "_quarto.yml").read_text(encoding="utf-8"))
    shutil.copytree(stage / "site", out / "site", ignore=shutil.ignore_patterns("*.qmd", "*.ipynb", "*.html"))
    shutil.copytree(paths.HOME / "site" / "preview", out / "site_libs", ignore=shutil.ignore_patterns("*.j2", "*.json"))
    files = [path for pattern in config["project"]["render"] for path in sorted(stage.glob(pattern))]
    books = {path.relative_to(stage).as_posix(): _book(path) for path in dict.fromkeys(files)}
    titles = {source: book.cells[0].source.splitlines()[0].lstrip("# ") for source, book in books.items()}
    script = (stage / config["format"]["html"]["include-after-body"]).read_text(encoding="utf-8")
    exporter = _exporter()
    for source, book in books.items():
        page = {"source": source, "titles": titles, "script": script}
        text, _ = exporter.from_notebook_node(book, {"page": page, "website": config["website"]})
        text = ANCHOR.sub("", SOURCE.sub(r"\1.html", text))
        paths.write_text(out / Path(source).with_suffix(".html"), text)


def _book(path: Path) -> Any:
    """A page as a notebook without hidden cells: a .qmd is one cell, its title and subtitle as in a notebook."""
    with no_iris():
        import nbformat

    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        book = nbformat.reads(text, as_version=4)
        book.cells = [cell for cell in book.cells if not cell.source.startswith("#| include: false")]
        for cell in book.cells:
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE)
        return book
    matter, body = re.match(r"(?:---\n(.*?)\n---\n)?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    try:
        about = yaml.safe_load(matter or "") or {}
    except yaml.YAMLError as why:
        raise DataError(f"{path}: the front matter is not valid YAML: {why}", hint="name: value, between ---") from why
    quote = f"> {about['subtitle']}\n\n" if about.get("subtitle") else ""
    words = f"# {about.get('title', path.stem)}\n\n{quote}{body}"
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(words)])


def _exporter() -> Any:
    """nbconvert's exporter in our frame; maths become MathML, which needs no script, and `:::` divisions."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter, TemplateExporter
    from nbconvert.filters.highlight import Highlight2HTML
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str, display: str = "inline") -> str:
            try:
                return convert(body.strip(), display=display)
            except Exception:  # noqa: BLE001 - errors of many kinds for what it can't read, which stays as it is
                return self.codespan(body)

        def block_math(self, body: str) -> str:
            return self.inline_math(body, "block")

    def markdown(text: str) -> str:
        plain = re.sub(r"^:{3,}[ \t]*(\{.*\})?[ \t]*$", _division, text, flags=re.MULTILINE)
        return MarkdownWithMath(renderer=Renderer(escape=False)).render(plain)

    class Pages(HTMLExporter):
        """Without a look for pictures that lack words: it parses each page again, and tests look at all pages."""

        def from_notebook_node(self, nb: Any, resources: Any = None, **how: Any) -> Any:
            self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
            self.register_filter("filter_data_type", WidgetsDataTypeFilter(notebook_metadata={}, parent=self))
            return TemplateExporter.from_notebook_node(self, nb, self._init_resources(resources), **how)

    return Pages(
        template_name="preview", extra_template_basedirs=[str(paths.HOME / "site")],
        exclude_input_prompt=True, exclude_output_prompt=True, filters={"markdown2html": markdown},
    )  # fmt: skip


def _division(mark: re.Match) -> str:
    """Quarto's `::: {.class}`, a callout's too, as HTML, which markdown may be in."""
    if not mark[1]:
        return "\n</div>\n"
    title = re.search(r'title="([^"]*)"', mark[1])
    heading = f'<p class="callout-title">{title[1]}</p>\n' if title else ""
    return f'\n<div class="{" ".join(re.findall(r"[.]([a-z-]+)", mark[1]))}">\n{heading}'
