"""What links of finished pages lead to."""

import posixpath
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LEAD = ("a", "img", "link", "script", "iframe", "source")


class Page(HTMLParser):
    """What a page leads to, as (tag, address), and the names of its parts."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.names.add(said.get("id"))
        if tag in LEAD:
            self.links.append((tag, said.get("href") or said.get("src") or ""))


def broken(out):
    """Give one warning for every link, picture or script in `out` that leads nowhere, or into a network."""
    pages = {path.relative_to(out).as_posix(): Page(path.read_text(encoding="utf-8")) for path in out.rglob("*.html")}
    for page, read in sorted(pages.items()):
        for tag, address in read.links:
            parts = urlsplit(address)
            goal = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path) or Path(page).name))
            if not address or parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if tag != "a":
                    yield f"{page}: <{tag}> would fetch {address} from a network"
            elif not (out / goal).is_file():
                yield f"{page}: broken link to {address}"
            elif parts.fragment and goal in pages and unquote(parts.fragment) not in pages[goal].names:
                yield f"{page}: broken link to {address}: no such part of the page"
