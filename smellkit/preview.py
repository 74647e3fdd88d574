"""The site by nbconvert where there is no Quarto: its templates in site/preview over the pages of _quarto.yml."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from smellkit import paths
from smellkit.errors import DataError

QUARTOS = re.compile(r"^:::.*|(?<!\w)@(fig|tbl|sec|eq)-\w+|^```\{=.*|\]\(.*?\)\{.*?\}", re.MULTILINE)  # not nbconvert's


def preview(stage: Path, out: Path) -> list[str]:
    """Render the project in `stage` into `out` with nbconvert, and return the warnings.

    Warned of: links and pictures that lead nowhere, maths that can't be read, markdown that only Quarto understands,
    and anything that a page would fetch from a network.
    """
    config = yaml.safe_load((stage / "_quarto.yml").read_text(encoding="utf-8"))
    look = shutil.ignore_patterns("*.j2", "*.json")
    shutil.copytree(paths.HOME / "site" / "preview", out / "site_libs", ignore=look)
    for pattern in [*config["project"].get("resources", []), config["format"]["html"]["css"]]:
        for path in stage.glob(pattern):
            (out / path.relative_to(stage)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, out / path.relative_to(stage))
    files = [path for pattern in config["project"]["render"] for path in sorted(stage.glob(pattern))]
    books = {path.relative_to(stage).as_posix(): _book(path) for path in dict.fromkeys(files)}
    titles = {source: book.cells[0].source.splitlines()[0].lstrip("# ") for source, book in books.items()}
    side = [item for part in config["website"]["sidebar"]["contents"] for item in part.get("contents", [part])]
    order = [item if isinstance(item, str) else item["href"] for item in side]
    warnings: list[str] = []
    script = (stage / config["format"]["html"]["include-after-body"]).read_text(encoding="utf-8")
    for source, book in books.items():
        place = order.index(source) if source in order else len(order)
        contents: list[tuple[int, str, str]] = []  # nbconvert copies what it is given, but no function
        page = {"source": source, "titles": titles, "target": _target, "contents": contents.copy}
        page |= {"before": order[max(place - 1, 0) : place], "after": order[place + 1 : place + 2], "script": script}
        exporter = _exporter(source, set(books), contents=contents, warnings=warnings)
        where = out / _target(source)
        where.parent.mkdir(parents=True, exist_ok=True)
        text, _ = exporter.from_notebook_node(book, {"page": page, "website": config["website"]})
        where.write_text(text, encoding="utf-8")
    return warnings + list(dict.fromkeys(check(out)))


def _target(source: str) -> str:
    """Address of the page made from `source`."""
    return re.sub(r"\.(qmd|ipynb)(?=#|$)", ".html", source)


def check(out: Path) -> Iterator[str]:
    """Give one warning for every link, picture or script in `out` that leads nowhere, or into a network."""
    from bs4 import BeautifulSoup

    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*.html"))}
    soups = {page: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for page, path in files.items()}
    names = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "img", "link", "script", "iframe", "source"]):
            address = str(tag.get("href") or tag.get("src") or "")
            parts = urlsplit(address)
            goal = _goal(page, unquote(parts.path)) if parts.path else page
            if not address or parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or address.startswith("//"):
                if tag.name != "a":
                    yield f"{page}: <{tag.name}> would fetch {address} from a network"
            elif not (out / goal).is_file():
                yield f"{page}: broken link to {address}"
            elif parts.fragment and goal in names and unquote(parts.fragment) not in names[goal]:
                yield f"{page}: broken link to {address}: no such part of the page"


def _goal(page: str, address: str) -> str:
    """Where a relative `address` on `page` leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), address))


def _book(path: Path) -> Any:
    """A page as a notebook without hidden cells: a .qmd is one cell, its title and subtitle as in a notebook."""
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


def _exporter(source: str, pages: set[str], *, contents: list[tuple[int, str, str]], warnings: list[str]) -> Any:
    """nbconvert's exporter with the template of site/preview, for the page made from `source`.

    Maths become MathML, which needs no script, and links between `pages` lead to what is made from them. The level,
    anchor and words of each heading go to `contents` when it is met.
    """
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str, display: str = "inline") -> str:
            try:
                return convert(body.strip(), display=display)
            except Exception as why:  # noqa: BLE001 - the library raises errors of many kinds for bad input
                warnings.append(f"{source}: maths can't be read: {body.strip()[:60]!r} ({type(why).__name__})")
                return self.codespan(body)

        def block_math(self, body: str) -> str:
            return self.inline_math(body, "block")

        def heading(self, text: str, level: int, **attributes: Any) -> str:
            html = re.sub(r'<a class="anchor-link".*?</a>', "", super().heading(text, level, **attributes))
            contents.extend(
                (level, anchor, re.sub("<.*?>", "", text)) for anchor in re.findall(r'id="(.*?)"', html)[:1]
            )
            return html

        def link(self, text: str, url: str, title: str | None = None) -> str:
            return super().link(text, _target(url) if _goal(source, url.partition("#")[0]) in pages else url, title)

    def markdown(text: str) -> str:
        plain = re.sub(r"^:{3,}[ \t]*(\{.*\})?[ \t]*$", _division, text, flags=re.MULTILINE)
        if only := QUARTOS.search(plain):
            warnings.append(f"{source}: only Quarto understands {only[0]!r}")
        return MarkdownWithMath(renderer=Renderer(escape=False)).render(plain)

    return HTMLExporter(
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
