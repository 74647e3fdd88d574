"""The pages for everybody: axe finds nothing serious, light or dark, at a desk or on a phone; no page is too wide."""

import shutil

import pytest

from smellkit import paths, site
from smellkit.study import pages
from smellkit.study.odour import substances

pytestmark = pytest.mark.browser
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e .[dev]")
LOOKED_AT = [
    "index", "site/results-odour", "site/results-scents", "site/results-noses", "site/results-plume", "site/try",
    "site/data", "site/models", "site/about", "site/hardware", "site/failure-modes", "site/substances",
    "site/substances/garlic", "site/notebooks/00_start", "site/notebooks/02_odour_encoder", "site/notebooks/30_results",
]  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory, serving):
    """A preview of all pages and of three published notebooks, served to this machine alone."""
    home = tmp_path_factory.mktemp("home")
    for name in ("_quarto.yml", "index.qmd"):
        shutil.copy(paths.HOME / name, home)
    shutil.copytree(paths.HOME / "site", home / "site", ignore=shutil.ignore_patterns("notebooks"))
    (home / "data").mkdir()
    shutil.copy(paths.HOME / "data" / "croissant.json", home / "data")
    (home / "site" / "notebooks").mkdir()
    for page in LOOKED_AT:
        if "notebooks" in page:
            shutil.copy(paths.HOME / f"{page}.ipynb", home / "site" / "notebooks")
    few = {name: text for name, text in substances.pages().items() if name.endswith(("substances.qmd", "garlic.qmd"))}
    site.build("published", home=home, quarto=False, parts=pages.parts(), pages=few)
    with serving(home / "_site") as address:
        yield address


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_on_a_page_keeps_anybody_out(address, chromium, width, mode):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
    page, found, outside = context.new_page(), [], []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(address) else None)
    page.on("pageerror", lambda why: found.append(str(why)))
    for name in LOOKED_AT:
        page.goto(f"{address}/{name}.html")
        page.eval_on_selector_all("details.results", "all => all.slice(0, 2).forEach(one => { one.open = true; })")
        for fault in axe_api.Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                found += [f"{name}: {fault['id']}: {node['html'][:120]}" for node in fault["nodes"]]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{name} is wider than {width} pixels")
    context.close()
    assert not found, "\n".join(found[:40])
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
