"""What links of finished pages lead to."""

import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup


def broken(out):
    """Give one warning for every link, picture or script in `out` that leads nowhere, or into a network."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*.html"))}
    soups = {page: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for page, path in files.items()}
    names = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "img", "link", "script", "iframe", "source"]):
            address = str(tag.get("href") or tag.get("src") or "")
            parts = urlsplit(address)
            goal = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path) or Path(page).name))
            if not address or parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if tag.name != "a":
                    yield f"{page}: <{tag.name}> would fetch {address} from a network"
            elif not (out / goal).is_file():
                yield f"{page}: broken link to {address}"
            elif parts.fragment and goal in names and unquote(parts.fragment) not in names[goal]:
                yield f"{page}: broken link to {address}: no such part of the page"
