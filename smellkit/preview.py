"""The site without Quarto: the same pages, navigation and look, from `_quarto.yml`, nbconvert and one template."""

from __future__ import annotations

import html
import json
import posixpath
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

from smellkit import pages, paths
from smellkit.pages import Page

LOOK = paths.HOME / "site" / "preview"  # page.html.j2, look.css, look.js


@dataclass(frozen=True)
class Entry:
    """One line of the navigation: `href` of the source page, or a section with entries of its own."""

    text: str
    href: str = ""
    parts: tuple[Entry, ...] = ()


def render(folder: Path, out: Path) -> list[str]:
    """Render the project in `folder` (with its _quarto.yml) into `out`, and return the warnings.

    Warned of: links and pictures that lead nowhere, cross-references without a target, maths that can't be read, and
    anything that a page would fetch from a network.
    """
    import jinja2

    config = yaml.safe_load((folder / "_quarto.yml").read_text(encoding="utf-8"))
    found = [path for pattern in config["project"]["render"] for path in sorted(folder.glob(pattern))]
    rendered = {path.relative_to(folder).as_posix(): pages.read(path, name=path.name) for path in dict.fromkeys(found)}
    website = config["website"]
    bar = [_entry(item, rendered) for item in website["navbar"]["left"]]
    side = [_entry(item, rendered) for item in website["sidebar"]["contents"]]
    order = [href for href in _hrefs(side) if href in rendered]
    loader = jinja2.FileSystemLoader(LOOK)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "page.html.j2"
    )
    shutil.rmtree(out, ignore_errors=True)
    assets = out / "site_libs"
    assets.mkdir(parents=True)
    for pattern in config["project"].get("resources", []):
        for path in folder.glob(pattern):
            (out / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, out / path.relative_to(folder))
    (assets / "look.css").write_text(_styles(folder, config), encoding="utf-8")
    shutil.copy2(LOOK / "look.js", assets / "look.js")
    index = [_index(source, page) for source, page in rendered.items()]
    (assets / "search.js").write_text(f"window.PAGES = {json.dumps(index, ensure_ascii=False)};\n", encoding="utf-8")
    for source, page in rendered.items():
        place = order.index(source) if source in order else -1
        text = template.render(
            page=page,
            source=source,
            website=website,
            root="../" * source.count("/"),
            bar=bar,
            side=side,
            before=_neighbour(order, place - 1, rendered) if place > 0 else None,
            after=_neighbour(order, place + 1, rendered) if 0 <= place < len(order) - 1 else None,
            footer={key: pages.markdown(value, page) for key, value in website.get("page-footer", {}).items()},
            target=target,
        )
        where = out / target(source)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(_relink(text, source, rendered), encoding="utf-8")
    return [warning for page in rendered.values() for warning in page.warnings] + check(out)


def target(source: str) -> str:
    """Address of the page made from `source`."""
    return re.sub(r"\.(qmd|ipynb)(?=$|#)", ".html", source)


def check(out: Path) -> list[str]:
    """Return one warning for every link, picture or script in `out` that leads nowhere, or into a network."""
    soups = {
        path.relative_to(out).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(out.rglob("*.html"))
    }
    names = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    warnings = []
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "img", "link", "script", "iframe", "source"]):
            address = str(tag.get("href") or tag.get("src") or "")
            parts = urlsplit(address)
            if not address or parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or address.startswith("//"):
                if tag.name != "a":
                    warnings.append(f"{page}: <{tag.name}> would fetch {address} from a network")
                continue
            goal = (
                posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path))) if parts.path else page
            )
            if not (out / goal).is_file():
                warnings.append(f"{page}: broken link to {address}")
            elif parts.fragment and goal in names and unquote(parts.fragment) not in names[goal]:
                warnings.append(f"{page}: broken link to {address}: no such part of the page")
    return list(dict.fromkeys(warnings))


def _entry(item: Any, rendered: dict[str, Page]) -> Entry:
    """A line of the navigation from a path, a text with an href, or a section."""
    if isinstance(item, str):
        item = {"href": item}
    if "section" in item:
        return Entry(item["section"], parts=tuple(_entry(part, rendered) for part in item["contents"]))
    page = rendered.get(item["href"])
    return Entry(item.get("text") or (page.title if page else item["href"]), item["href"])


def _hrefs(entries: list[Entry] | tuple[Entry, ...]) -> list[str]:
    return [href for entry in entries for href in ([entry.href] if entry.href else _hrefs(entry.parts))]


def _neighbour(order: list[str], place: int, rendered: dict[str, Page]) -> Entry:
    return Entry(rendered[order[place]].title, order[place])


def _index(source: str, page: Page) -> dict[str, Any]:
    """What the search looks through."""
    parts = [{"id": name, "text": text} for _, name, text in page.headings]
    return {"href": target(source), "title": page.title, "parts": parts, "text": page.text[:6000]}


def _relink(text: str, source: str, rendered: dict[str, Page]) -> str:
    """Point links between source pages at the pages made from them."""

    def swap(match: re.Match) -> str:
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(source), html.unescape(match[1])))
        return f'href="{target(match[1])}{match[2] or ""}"' if goal in rendered else match[0]

    return re.sub(r'href="([^":#]+\.(?:qmd|ipynb))(#[^"]*)?"', swap, text)


def _styles(folder: Path, config: dict[str, Any]) -> str:
    """One style sheet: the preview's own, the kit's, and the colours of code for both modes."""
    from pygments.formatters import HtmlFormatter

    own = (LOOK / "look.css").read_text(encoding="utf-8")
    kit = (folder / config["format"]["html"]["css"]).read_text(encoding="utf-8")
    light = HtmlFormatter(style="default").get_style_defs("body.quarto-light .highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs("body.quarto-dark .highlight")
    code = "\n".join(
        line for line in (light + "\n" + dark).splitlines() if "background" not in line or "{ color" in line
    )
    return f"{own}\n{kit}\n{code}\n"
