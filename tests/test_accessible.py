"""The pages for everybody: axe finds nothing serious, light or dark, at a desk or on a phone; no page is too wide."""

import pytest

from smellkit import paths, site
from smellkit.study import pages
from smellkit.study.odour import substances
from tests.links import broken

pytestmark = pytest.mark.browser
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e .[dev]")
LOOKED_AT = [
    "index", "site/results-odour", "site/results-scents", "site/results-noses", "site/results-plume", "site/try",
    "site/data", "site/models", "site/about", "site/hardware", "site/failure-modes", "site/substances",
    "site/substances/garlic", "site/notebooks/00_start", "site/notebooks/02_odour_encoder", "site/notebooks/30_results",
]  # fmt: skip


@pytest.fixture(scope="module")
def content():
    """What pages show that is made of data: the substances' own, and parts of others."""
    return pages.parts(), substances.pages()


@pytest.fixture(scope="module")
def built(tmp_path_factory, content):
    """A preview of all pages and of the published notebooks."""
    home = tmp_path_factory.mktemp("home")
    for name in ("_quarto.yml", "index.qmd", "site", "data/croissant.json"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).symlink_to(paths.HOME / name)
    with pytest.MonkeyPatch.context() as here:
        here.setenv("SMELLKIT_WORK", str(home / "work"))
        site.build("published", home=home, quarto=False, content=lambda: content)
    return home / "_site"


@pytest.fixture
def address(built, serving):
    """The same, served to this machine alone."""
    with serving(built) as address:
        yield address


def test_each_substance_has_a_page_of_its_own(content):
    assert len(content[1]) >= 50 and all(page for page in content[1].values())


def test_no_link_on_any_page_leads_nowhere_and_nothing_comes_from_a_network(built):
    assert not list(broken(built))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKED_AT)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_nothing_on_a_page_keeps_anybody_out(address, chromium, name, mode):
    context = chromium.new_context(color_scheme=mode)
    page, faults, outside = context.new_page(), [], []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(address) else None)
    page.on("pageerror", lambda why: faults.append(str(why)))
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{address}/{name}.html")
        page.eval_on_selector_all("details.results", "all => all.slice(0, 2).forEach(one => { one.open = true; })")
        for fault in axe_api.Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                faults += [f"{width}: {fault['id']}: {node['html'][:120]}" for node in fault["nodes"]]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            faults.append(f"wider than {width} pixels")
    context.close()
    assert not faults, "\n".join(faults[:40])
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
