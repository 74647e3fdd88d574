"""The nose in the page: a real Chromium, the page as the site has it, and the answers of Python beside its own.

Web Serial is an object of ours in the page, joined to the kit's virtual player, which gets what a wire would carry.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from smellkit import Pipeline, paths
from smellkit.device import frames, playlist
from smellkit.device.virtual import VirtualNeckWear
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import read_parts
from smellkit.odour.smell import load_smell
from smellkit.site import stage_try
from smellkit.study.odour.page import FILE, readout

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
SAMPLE = paths.sample() / "smellnet" / "base" / "testing"
REAL = Path(os.environ.get("SMELLKIT_DATA", "/nowhere")) / "smellnet" / "base" / "testing"
SERIAL = """
navigator.serial ??= {};
const port = new EventTarget();
Object.assign(port, {
  open: async () => { port.writable = new WritableStream({write: (bytes) => window.received([...bytes])});
                      port.readable = new ReadableStream({start: (control) => { window.board = control; }}); },
  close: async () => {},
});
Object.defineProperty(navigator, "serial", {value: {requestPort: async () => port}});
window.unplug = () => port.dispatchEvent(new Event("disconnect"));
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory, serving):
    """The page on a server of this machine alone."""
    root = tmp_path_factory.mktemp("pages")
    stage_try(root / "site" / "try")
    text = '<!DOCTYPE html><meta charset="utf-8"><div id="try"></div><script type="module" src="try/page.js"></script>'
    (root / "site" / "try.html").write_text(text)

    with serving(root) as address:
        yield f"{address}/site/try.html"


@pytest.fixture
def device():
    return VirtualNeckWear(now=time.monotonic)


@pytest.fixture
def page(chromium, address, device):
    """The page, joined to a virtual player; whatever it logs as an error fails the test."""
    page, errors = chromium.new_page(), []
    page.on("pageerror", lambda why: errors.append(str(why)))
    page.on("request", lambda request: errors.append(request.url) if "127.0.0.1" not in request.url else None)
    page.expose_function("received", lambda data: device.receive(bytes(data)))
    page.add_init_script(SERIAL)
    page.goto(address)
    page.wait_for_selector("[data-ready]")
    yield page
    page.close()
    assert not errors


EARLY = 5  # each so many recordings are also followed row by row, which takes forty times as long


def asked(page, path, kind, *, early=True):
    """What the page makes of a recording: the answer, and the last one on the way (`early`)."""
    page_answer = """async ([text, kind, early]) => {
      const {readRecording} = await import("./try/smell.js");
      const encoder = await document.getElementById("try").smell(kind);
      const {rows} = readRecording(text, encoder.columns);
      return {...encoder.recording(rows), early: early ? encoder.early(rows).at(-1) : null};
    }"""
    return page.evaluate(page_answer, [path.read_text(), kind, early])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "odour", "odour-same-session"])
def test_the_page_gives_the_answers_of_python(page, kind):
    files = REAL if REAL.is_dir() and kind != "sample" else SAMPLE
    smell = load_smell("odour-same-session" if kind == "sample" else kind)
    pipeline = Pipeline(smell.fit() if kind == "sample" else smell)
    compared = 0
    for path in sorted(files.glob("*/*.csv"))[:50]:
        expected = pipeline(path)
        if not expected.probabilities:  # outside what the weights know: the page says so, too
            with pytest.raises(sync_api.Error, match="outside what these weights know"):
                asked(page, path, kind)
            continue
        got = asked(page, path, kind, early=compared % EARLY == 0)
        assert (got["name"], got["reason"], got["mixtureReason"]) == (
            expected.name,
            expected.reason,
            expected.mixture_reason,
        )
        np.testing.assert_allclose(got["probabilities"], expected.probabilities, atol=1e-4)
        if kind != "sample":  # of a read-out no category was calibrated
            assert (got["category"], got["categoryConfidence"]) == (
                expected.category,
                pytest.approx(expected.category_confidence, abs=1e-4),
            )
        np.testing.assert_allclose(got["beta"], expected.shares, atol=1e-4 if not expected.reason else 5e-4)
        if compared % EARLY == 0:
            recogniser = Recogniser(pipeline, columns=pipeline.smell.columns)
            rows = np.concatenate([part.values for part in read_parts(path, pipeline.smell)])
            early = [answer for row in rows if (answer := recogniser.add(row))][-1]
            np.testing.assert_allclose(got["early"]["probabilities"], early.probabilities, atol=1e-4)
        compared += 1
    assert compared >= 10


def test_the_page_sends_the_frames_of_the_driver(page):
    golden = [[scent, ms, frames.play(scent, ms).hex()] for scent in range(1, 13) for ms in (1, 10_000, 22_000, 65_000)]
    code = """async (golden) => {
      const {play, stop, wake} = await import("./try/neckwear.js");
      const hex = (frame) => [...frame].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      return [golden.filter(([scent, ms, wanted]) => hex(play(scent, ms)) !== wanted), hex(stop()), hex(wake())];
    }"""
    assert page.evaluate(code, golden) == [[], frames.stop().hex(), frames.wake().hex()]


def test_the_page_renders_mixtures_as_python_does(page):
    mixtures = np.random.default_rng(0).dirichlet(np.full(12, 0.3), size=60)
    code = """async (all) => {
      const {render} = await import("./try/neckwear.js");
      return all.map((beta) => render(beta, {seconds: 40}));
    }"""
    for beta, got in zip(mixtures, page.evaluate(code, mixtures.tolist()), strict=True):
        plan = playlist.render(beta.tolist(), seconds=40)
        assert [slot["scent"] for slot in got["slots"]] == [scent for _, scent, _ in plan.slots]
        assert got["end"] == pytest.approx(plan.seconds)


PLAYER = """async (slept) => {
  const {Player, TIMING} = await import("./try/neckwear.js"), sent = [], now = Date.now;
  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const port = {write: (frame) => sent.push(frame[3] === 3 ? "wake" : frame[11] === 1 ? "play" : "stop")};
  const timing = {...TIMING, gap: 10, stopGap: 5, wakeGap: 50, frame: 300, renew: 100};
  const player = new Player(port, {timing}), slots = [{start: 0, scent: 3, seconds: 1}];
  const play = () => player.run({slots, end: 1}).then(() => "", (why) => why.message);
  const over = play();
  await wait(slept ? 400 : 30);
  if (!slept) { await player.stop(); sent.length = 0; play(); await wait(300); }
  Date.now = () => now() + 3600e3 * slept;
  const said = slept ? await over : "";
  await player.stop();
  Date.now = now;
  return [said, sent];
}"""


def test_a_page_whose_machine_slept_plays_nothing_more_and_says_so(page):
    said, sent = page.evaluate(PLAYER, 1)
    assert "the machine slept" in said
    assert sent[:4] == ["wake", "wake", "wake", "play"] and sent.count("play") <= 2 and sent[-1] == "stop"


def test_a_page_whose_stop_does_not_leave_does_not_say_that_nothing_is_in_the_air(page):
    code = """async () => {
      const {Player} = await import("./try/neckwear.js"), told = [];
      const port = {write: () => Promise.reject(new Error("gone"))};
      const player = new Player(port, {tell: (text, scent) => told.push(scent)});
      return [await player.stop().then(() => "", (why) => why.message), told];
    }"""
    assert page.evaluate(code) == ["gone", []]


def test_a_page_wakes_the_player_again_where_a_stop_cut_that_short(page):
    assert page.evaluate(PLAYER, 0)[1][:4] == ["wake", "wake", "wake", "play"]


def played(page):
    """A sample recognised and, over Web Serial, played by the virtual device."""
    page.click("[data-sample=garlic]")
    page.wait_for_selector("text=did not change after")
    page.click("[data-part=connect]")
    page.wait_for_selector("text=Disconnect the NeckWear")
    page.click("[data-part=play]")
    page.wait_for_selector("text=in the air: garlic", timeout=20_000)


ENDS = {
    "Escape": lambda page: page.keyboard.press("Escape"),
    "Stop": lambda page: page.click("[data-part=stop]"),
    "leaving": lambda page: page.evaluate("dispatchEvent(new Event('pagehide'))"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_scent_played_from_the_page_ends_with_escape_with_stop_and_with_the_page(page, device, end):
    played(page)
    assert device.emitting == 11
    ENDS[end](page)
    page.wait_for_function("document.querySelector('[data-part=air]').textContent === 'nothing is in the air'")
    page.wait_for_timeout(300)
    device.tick()
    assert not device.emitting


def test_a_lost_cable_is_said_and_the_page_goes_back_to_its_own_player(page):
    played(page)
    page.evaluate("unplug()")
    page.wait_for_selector("text=The player is gone")
    page.wait_for_selector("text=Use a real NeckWear")


def test_rows_of_a_board_are_recognised_as_they_come(page):
    rows = next((SAMPLE / "garlic").glob("*.csv")).read_text().splitlines()
    page.click("[data-part=board]")
    page.wait_for_function("window.board")
    text = "\n".join(["half a li", rows[0], *rows[1:140], "1,2,garbage", *rows[140:160], ""])
    page.evaluate("(text) => window.board.enqueue(new TextEncoder().encode(text))", text)
    page.wait_for_selector("text=159 rows, 1 lines dropped")
    page.wait_for_selector(
        "text=(now)"
    )  # the shipped weights have never smelled the simulated nose: any answer will do


def fed(page, lines):
    page.click("[data-part=board]")
    page.wait_for_function("window.board")
    text = "\n".join(["half a li", *lines, ""])
    page.evaluate("(text) => window.board.enqueue(new TextEncoder().encode(text))", text)


def test_a_board_of_another_converter_is_told_and_not_named(page):
    fed(page, ["3000,2900,2950,3800,1,16,0,25,1012,24,881,8"] * 6)
    page.wait_for_selector("text=The board says what this nose can't")
    page.wait_for_selector("text=NO2")
    assert not page.inner_text("[data-part=answer]")


def test_an_overflow_of_a_live_board_counts_as_the_top_of_its_span_and_another_rate_is_told(page):
    fed(page, ["53,84,152,768,4294967295,36,0,25,1022,28,420,-43"] * 30)
    page.wait_for_selector("text=30 rows; ")
    page.wait_for_selector("text=rows come a second where the weights know 1")
    page.wait_for_selector("text=65535 to 65535")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "no column NO2"),
        ("time,NO2,C2H5OH,VOC,CO,Alcohol,LPG\n1,2,3,4,5,6,7\n", "looks like a clock"),
        ("NO2,C2H5OH,VOC,CO,Alcohol,LPG\n1,2,3,4,5,6\n1,2,3\n", "Line 3: 3 fields"),
        ("NO2,C2H5OH,VOC,CO,Alcohol,LPG\n1,2,3,4,5,6\n1,2,3,4000,5,6\n", "Line 3, column CO"),
        ("NO2,C2H5OH,VOC,CO,Alcohol,LPG\n1,2,3,4,5,6\n1,2,3,4,5,6\n", "2 rows are fewer than the 125"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_place(page, text, said):
    page.evaluate("(text) => document.getElementById('try').recognise(text, 'file.csv', 'odour')", text)
    page.wait_for_selector(f"text={said}")
    assert page.locator("[data-part=play]").is_disabled()


def test_the_read_out_of_the_samples_is_the_one_that_python_fits():
    kept, made = json.loads(FILE.read_text()), readout()
    assert kept["classes"] == made["classes"]
    np.testing.assert_allclose(kept["weight"], made["weight"], rtol=1e-3, atol=1e-4)


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in (paths.HOME / "site" / "try").glob("*.js")) < 40_000
