"""One page's body as HTML, from a .qmd page or an executed notebook: the plain part of Quarto's markdown.

Understood: front matter, headings with `{#id}`, lists, tables, footnotes, images with attributes, `:::` divisions and
callouts, raw `{=html}` blocks, maths (as MathML), and `@fig-name` to something on the same page.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag

from smellkit.errors import DataError

FENCE = re.compile(r"^(:{3,})\s*(.*?)\s*$")
CALLOUTS = {"note": "Note", "tip": "Tip", "warning": "Warning", "important": "Important", "caution": "Caution"}


@dataclass
class Page:
    """A rendered page: `title`, `subtitle`, `body` (HTML), the headings for the table of contents, and plain text."""

    source: Path
    title: str = ""
    subtitle: str = ""
    body: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)  # level, id, text
    text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    code: bool = False
    warnings: list[str] = field(default_factory=list)


def read(path: Path, *, name: str = "") -> Page:
    """Return the page made from the .qmd or .ipynb file at `path`; `name` is what warnings call it."""
    page = Page(Path(name or path.name))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        body = _notebook(text, page)
    else:
        matter, text = front_matter(text, where=str(path))
        page.options = matter
        page.title, page.subtitle = str(matter.get("title", "")), str(matter.get("subtitle", ""))
        body = markdown(text, page)
    soup = BeautifulSoup(body, "html.parser")
    _title(soup, page)
    _headings(soup, page)
    _references(soup, page)
    for table in soup.find_all("table"):
        if not table.find_parent(class_="wide"):
            table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
    page.body = str(soup)
    for code in soup(["style", "script", "pre", "svg", "math"]):
        code.decompose()
    page.text = re.sub(r"\s+", " ", soup.get_text(" ")).strip()
    return page


def front_matter(text: str, *, where: str = "page") -> tuple[dict[str, Any], str]:
    """Split the YAML between `---` lines at the head of a page from the rest."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        return {}, text
    try:
        return yaml.safe_load(match[1]) or {}, text[match.end() :]
    except yaml.YAMLError as why:
        raise DataError(
            f"{where} has a front matter that is not valid YAML: {why}", hint="name: value lines between ---"
        ) from why


def markdown(text: str, page: Page) -> str:
    """Return `text` as HTML; what can't be understood is noted in the page's warnings."""
    import mistune

    kept: list[str] = []

    def keep(piece: str, *, block: bool = False) -> str:
        kept.append(piece)
        token = f"\ue000{len(kept) - 1}\ue001"
        return f"\n\n{token}\n\n" if block else token

    text = _divisions(text, page, keep)
    pieces = re.split(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", text, flags=re.MULTILINE | re.DOTALL)
    for number, piece in enumerate(pieces):
        raw = re.match(r"```\{=html\}\n(.*)\n```", piece, re.DOTALL)
        if raw:
            pieces[number] = keep(raw[1], block=True)
        elif number % 2 == 0:
            piece = re.sub(
                r"\$\$(.+?)\$\$", lambda m: keep(_maths(m[1], page, block=True), block=True), piece, flags=re.DOTALL
            )
            pieces[number] = re.sub(
                r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\d$])", lambda m: keep(_maths(m[1], page)), piece
            )
        else:
            pieces[number] = re.sub(r"^```\{\.(\w+)\}", r"```\1", piece)
    render = mistune.create_markdown(escape=False, plugins=["table", "footnotes", "strikethrough", "def_list", "url"])
    body = str(render("".join(pieces)))
    body = re.sub(r"<p>\s*(\ue000\d+\ue001)\s*</p>", r"\1", body)
    while "\ue000" in body:
        body = re.sub(r"\ue000(\d+)\ue001", lambda m: kept[int(m[1])], body)
    body = _attributes(body)
    return _captions(body)


def _divisions(text: str, page: Page, keep: Any) -> str:
    """Render `::: {.class}` divisions, which may nest, and put a token in the place of each."""
    lines, out, code = text.splitlines(), [], False
    index = 0
    while index < len(lines):
        code ^= lines[index].startswith("```")
        opened = None if code else FENCE.match(lines[index])
        if not opened or not opened[2]:
            if opened:
                page.warnings.append(f"{page.source}: a ::: closes nothing")
            out.append(lines[index])
            index += 1
            continue
        depth, end = 1, index + 1
        while end < len(lines) and depth:
            mark = FENCE.match(lines[end])
            depth += 0 if not mark else 1 if mark[2] else -1
            end += 1
        if depth:
            page.warnings.append(f"{page.source}: `{lines[index]}` is never closed")
        inner = "\n".join(lines[index + 1 : end - 1])
        out.append(keep(_division(opened[2], inner, page), block=True))
        index = end
    return "\n".join(out)


def _division(words: str, inner: str, page: Page) -> str:
    identity, classes, values = _parse(words.strip("{}"))
    if not words.startswith("{"):
        classes = words.split()
    body = markdown(inner, page)
    kind = next((name.removeprefix("callout-") for name in classes if name.startswith("callout-")), "")
    if kind in CALLOUTS:
        title = values.get("title") or CALLOUTS[kind]
        return f'<aside class="callout {kind}"><p class="callout-title">{html.escape(title)}</p>{body}</aside>'
    name = f' id="{identity}"' if identity else ""
    return f'<div{name} class="{" ".join(classes)}">{body}</div>'


def _parse(words: str) -> tuple[str, list[str], dict[str, str]]:
    """`#id .class name="value"` in its three parts."""
    pairs = dict(re.findall(r'([\w-]+)="([^"]*)"', words)) | dict(re.findall(r'([\w-]+)=([^\s"]+)', words))
    rest = re.sub(r'[\w-]+=("[^"]*"|\S+)', "", words)
    identity = re.search(r"#([\w-]+)", rest)
    return identity[1] if identity else "", re.findall(r"\.([\w-]+)", rest), pairs


def _attributes(body: str) -> str:
    """Put `{#id .class width=50%}` behind an image, a link or a heading onto it."""

    def put(element: str, words: str) -> str:
        tag = BeautifulSoup(element, "html.parser").find()
        identity, classes, values = _parse(html.unescape(words))
        assert isinstance(tag, Tag)
        if identity:
            tag["id"] = identity
        if classes:
            tag["class"] = " ".join(classes)
        if "fig-alt" in values:
            tag["data-caption"], tag["alt"] = str(tag.get("alt", "")), values["fig-alt"]
        if "width" in values:
            width = values["width"]
            tag["style"] = f"width:{width if width.endswith('%') else width.removesuffix('px') + 'px'}"
        return str(tag)

    body = re.sub(r"(<img[^>]*?>)\{([^}<>]*)\}", lambda m: put(m[1], m[2]), body)
    body = re.sub(r"(<a [^>]*>[^<]*</a>)\{([^}<>]*)\}", lambda m: put(m[1], m[2]), body)
    return re.sub(r"(<h[1-6]>[^\n]*?)\s*\{([#.][^}<>]*)\}(</h[1-6]>)", lambda m: put(m[1] + m[3], m[2]), body)


def _captions(body: str) -> str:
    """A paragraph that is one image with words becomes a figure with a caption, as in Quarto."""

    def wrap(match: re.Match) -> str:
        tag = BeautifulSoup(match[1], "html.parser").find()
        assert isinstance(tag, Tag)
        caption = tag.attrs.pop("data-caption", tag.get("alt", ""))
        if not caption:
            return match[1]
        name = f' id="{tag.attrs.pop("id")}"' if tag.get("id") else ""
        shade = [name for name in str(tag.get("class", "")).split() if name in ("light-content", "dark-content")]
        kind = f' class="{shade[0]}"' if shade else ""
        return f"<figure{name}{kind}>{tag}<figcaption>{html.escape(str(caption))}</figcaption></figure>"

    return re.sub(r"<p>(<img[^>]*>)</p>", wrap, body)


def _maths(source: str, page: Page, *, block: bool = False) -> str:
    """LaTeX as MathML, which every browser shows without a script."""
    from latex2mathml.converter import convert

    try:
        return convert(source.strip(), display="block" if block else "inline")
    except Exception as why:  # noqa: BLE001 - the library raises errors of many kinds for bad input
        page.warnings.append(f"{page.source}: maths can't be read: {source.strip()[:60]!r} ({type(why).__name__})")
        return f"<code>{html.escape(source)}</code>"


def _notebook(text: str, page: Page) -> str:
    """The body of an executed notebook: nbconvert shows code and outputs, this module its words."""
    import nbformat
    from nbconvert import HTMLExporter

    book = nbformat.reads(text, as_version=4)
    shown, words = [], {}
    for number, cell in enumerate(book.cells):
        options = _cell_options(cell.source) if cell.cell_type == "code" else {}
        if options.get("include") is False:
            continue
        if cell.cell_type == "markdown":
            words[f"words-{number}-end"] = markdown(cell.source, page)
            cell.source = f"words-{number}-end"
            cell.pop("attachments", None)
        elif cell.cell_type == "code":
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip()
            page.code = True
            if options.get("echo") is False:
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "remove_input"]
        shown.append(cell)
    book.cells = shown
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    body, _ = exporter.from_notebook_node(book, resources={"global_content_filter": {}})
    soup = BeautifulSoup(body, "html.parser")
    for area in soup.select(".code_cell .input"):
        fold = soup.new_tag("details", attrs={"class": "code", "open": ""})
        area.wrap(fold)
        summary = soup.new_tag("summary")
        summary.string = "Code"
        fold.insert(0, summary)
    body = str(soup)
    for token, rendered in words.items():
        body = re.sub(rf"<p>\s*{token}\s*</p>", rendered.replace("\\", r"\\"), body)
    return body


def _cell_options(source: str) -> dict[str, Any]:
    """The `#| name: value` lines at the head of a cell."""
    lines = [line[2:] for line in source.splitlines() if line.startswith("#|")]
    try:
        return yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError:
        return {}


def _title(soup: BeautifulSoup, page: Page) -> None:
    """Take title and subtitle from the first heading and the quotation below it, unless the front matter gave them."""
    first = soup.find("h1")
    if first and not page.title:
        page.title = first.get_text().strip()
        quote = first.find_next_sibling()
        first.extract()
        if quote is not None and quote.name == "blockquote":
            page.subtitle = quote.decode_contents().strip()
            quote.extract()
    if not page.title:
        page.warnings.append(f"{page.source}: the page has no title")


def _headings(soup: BeautifulSoup, page: Page) -> None:
    used: set[str] = {str(tag["id"]) for tag in soup.find_all(id=True)}
    for heading in soup.find_all(["h2", "h3"]):
        for anchor in heading.find_all("a", class_="anchor-link"):
            anchor.extract()
        text = heading.get_text().strip()
        if not heading.get("id"):
            base = re.sub(r"[^\w\s-]", "", text.lower()).strip().replace(" ", "-") or "part"
            name, number = base, 1
            while name in used:
                name, number = f"{base}-{number}", number + 1
            used.add(name)
            heading["id"] = name
        page.headings.append((int(heading.name[1]), str(heading["id"]), text))


def _references(soup: BeautifulSoup, page: Page) -> None:
    """Turn `@fig-name` into a link, numbered in the order of the page; one that leads nowhere is a warning."""
    words = {"fig": "Figure", "tbl": "Table", "sec": "Section", "eq": "Equation"}
    found = [str(tag["id"]) for tag in soup.find_all(id=re.compile(r"^(fig|tbl|sec|eq)-"))]
    for text in soup.find_all(string=re.compile(r"@(fig|tbl|sec|eq)-[\w-]+")):
        if text.find_parent(["code", "pre", "style", "script"]):
            continue

        def link(match: re.Match) -> str:
            kind, name = match[1], match[0][1:]
            if name not in found:
                page.warnings.append(f"{page.source}: unresolved cross-reference {match[0]}")
                return f"<strong>?{match[0]}</strong>"
            number = [other for other in found if other.startswith(kind + "-")].index(name) + 1
            return f'<a href="#{name}">{words[kind]} {number}</a>'

        linked = re.sub(r"@(fig|tbl|sec|eq)-[\w-]*\w", link, html.escape(str(text), quote=False))
        text.replace_with(BeautifulSoup(linked, "html.parser"))
