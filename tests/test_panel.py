"""The live panel without a browser: the loop is closed, Stop is at once, nothing is left behind."""

import datetime
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from smellkit import panel
from smellkit.device.board import Board
from smellkit.device.enose import Nose
from smellkit.device.errors import NoReply
from smellkit.device.link import Port
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer
from smellkit.device.virtual import VirtualNeckWear
from smellkit.errors import OptionError
from smellkit.odour import live, recordings
from smellkit.odour.live import EVERY, Recogniser
from smellkit.odour.pipeline import Evidence, Pipeline
from smellkit.odour.scents import SCENTS, list_pictures
from smellkit.panel import drawings
from smellkit.sensors import SENSORS


@pytest.fixture(scope="module")
def recogniser():
    return Recogniser(Pipeline.fit())


@pytest.fixture
def session(recogniser):
    with panel.Session(recogniser=lambda: recogniser) as session:
        yield session


def recording(substance):
    return next(recordings.find().glob(f"base/testing/{substance}/*.csv"))


def wait(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


# recognising


def test_answers_come_with_the_first_window_and_then_every_few_rows(recogniser):
    recogniser.restart()
    rows = recordings.read_files([recording("garlic")], root=recordings.find())[list(SENSORS)].to_numpy()
    answers = {n: answer for n, row in enumerate(rows, 1) if (answer := recogniser.add(row))}
    span = recogniser.span
    assert list(answers)[:3] == [span, span + EVERY, span + 2 * EVERY]
    last = answers[max(answers)]
    assert last.name == "garlic" and not last.abstains
    assert sum(last.shares) == pytest.approx(1) and sum(last.probabilities) == pytest.approx(1)
    assert len(recogniser._rows) == span  # and no more, however long it goes on
    recogniser.restart()
    assert recogniser.filled == 0 and recogniser.add(rows[0]) is None


def test_a_smell_that_the_player_has_not_or_that_is_uncertain_is_not_played(recogniser):
    def judged(**shares):
        probabilities = np.array([shares.get(name, 0.0) for name in recogniser.pipeline.smell.classes])
        return recogniser.pipeline.judge(probabilities)

    assert "mint is not one of" in judged(mint=0.9, apple=0.1).reason
    halves = judged(apple=0.5, pear=0.5)
    assert halves.reason == "not sure: pear or apple" and not halves.mixture_reason
    known = [name for name in recogniser.pipeline.smell.classes if name in SCENTS]
    assert judged(**dict.fromkeys(known, 1 / len(known))).mixture_reason
    assert not judged(apple=0.7, pear=0.3).abstains


def test_trained_weights_recognise_row_by_row_too():
    trained = Recogniser(Pipeline.load())
    rows = recordings.read_files([recording("garlic")], root=recordings.find())[list(SENSORS)].to_numpy()
    answers = [answer for row in rows if (answer := trained.add(row))]
    assert len(trained.pipeline.smell.classes) == 50 and set(SCENTS) <= set(trained.pipeline.smell.classes)
    assert sum(answers[0].probabilities) == pytest.approx(1)  # what they say of a simulated smell means nothing


# sniffed, recognised, played


def test_what_was_sniffed_is_in_the_air(recogniser):
    with Board(recording("mango"), rate=300) as board, Nose(board.port) as nose, NeckWear.open("virtual") as player:
        outcome = live.sniff(nose, recogniser, rows=150).mixture.play(player, seconds=0.5, wait=True)
        wait(lambda: not player.virtual.emitting)
        air = player.virtual.air
    assert outcome.mixture.name == "mango"
    assert [piece.scent for piece in air] == [outcome.scent] == [SCENTS.index("mango") + 1]
    assert air[0].end - air[0].start == pytest.approx(0.5, abs=0.2)


def test_what_the_player_has_not_leaves_the_air_alone(recogniser):
    with Board(recording("mint"), rate=300) as board, Nose(board.port) as nose, NeckWear.open("virtual") as player:
        outcome = live.sniff(nose, recogniser, rows=150).mixture.play(player, seconds=5, mixture=True, wait=True)
        assert not outcome and player.virtual.air == []


def test_a_silent_board_ends_the_loop(recogniser):
    with Board(recording("mango"), rate=0.01) as board, Nose(board.port) as nose, pytest.raises(NoReply):
        live.sniff(nose, recogniser, timeout=0.2)


def test_the_table_of_the_air_has_what_was_planned_beside_it():
    with NeckWear.open("virtual") as player:
        plan = player.play_mixture([0.5, 0.5] + [0] * 10, seconds=2.4, slot=1.0)
        player.wait()
        table = live.aired(player, plan)
    assert list(table["name"]) == ["banana, planned", "banana, in the air"] + [
        "mandarin_orange, planned", "mandarin_orange, in the air"
    ]  # fmt: skip
    planned, emitted = table.iloc[::2], table.iloc[1::2]
    assert np.allclose(planned["start"], emitted["start"], atol=0.1)
    with pytest.raises(OptionError, match="virtual"):
        live.aired(type("Real", (), {"virtual": None})())


# the session


def test_a_session_sniffs_plays_what_it_recognised_and_stops_within_200_ms(session):
    session.connect(source=recording("mango"), rate=300)
    wait(lambda: session.answer and not session.busy)
    assert session.connected and session.rows
    air = session.player.virtual
    mango = SCENTS.index("mango") + 1
    wait(lambda: (played := session.play(seconds=30)) and played.scent == mango)  # the first windows are not so sure
    wait(lambda: air.emitting == mango)
    called = time.monotonic()
    session.stop()
    wait(lambda: not air.emitting)
    assert air.air[-1].end - called < 0.2
    wait(lambda: session.play(seconds=30, mixture=True))
    wait(lambda: air.emitting)
    assert session.plan is not None and session.playing[0]
    player = session.player
    session.disconnect()
    assert not air.emitting
    wait(lambda: not session.connected)
    assert not player.playing


def test_a_port_that_is_none_becomes_a_message(session):
    session.connect(nose="/dev/nonesuch", player="virtual")
    wait(lambda: session.message)
    assert "/dev/nonesuch" in session.message and not session.connected
    session.play(3)
    assert session.message == "Connect first."


def test_a_board_that_goes_away_becomes_a_message_and_comes_back(session):
    session.connect(source=recording("mango"), rate=300)
    wait(lambda: session.rows)
    session.board.unplug()
    wait(lambda: "gone" in session.trouble)
    session.board.plug()
    wait(lambda: session.answer and not session.trouble)


def test_a_board_at_another_rate_than_the_weights_know_is_told_and_not_recognised(session):
    with Board(recording("mango"), rate=50) as board:
        session.connect(nose=board.port)
        wait(lambda: session.recogniser and session.recogniser.filled == 1)
        assert session.answer is None and "a second, and the weights know 1" in session.trouble
        session.play(seconds=1)
        assert session.player.virtual.air == []


def test_a_session_leaves_no_thread_and_no_port_behind(recogniser):
    files = Path("/proc/self/fd")
    threads, before = threading.active_count(), len(list(files.iterdir()))
    for _ in range(2):
        with panel.Session(recogniser=lambda: recogniser) as session:
            session.connect(source=recording("mango"), rate=300)
            wait(lambda: session.rows)  # noqa: B023
    assert threading.active_count() <= threads  # fewer: those of an earlier test ended
    assert len(list(files.iterdir())) <= before


# the widgets


@pytest.fixture
def shown(recogniser):
    shown = panel.show(recogniser=lambda: recogniser)
    yield shown
    shown.close()


def test_a_panel_starts_nothing_before_a_click(shown):
    assert not shown.session.connected and shown.session._thread is None
    assert "Not connected" in shown.pictures["now"].value


def test_clicks_do_what_they_say(shown):
    shown.controls["rate"].value = 50.0
    shown.controls["connect"].click()
    wait(lambda: shown.controls["connect"].description == "Disconnect" and not shown.session.busy)
    shown.controls["scent"].value = 7
    shown.controls["play"].click()
    air = shown.session.player.virtual
    wait(lambda: air.emitting == 7)
    wait(lambda: "asked for 7 strawberry" in shown.pictures["now"].value)
    shown.controls["stop"].click()
    wait(lambda: not air.emitting)
    wait(lambda: "last stop sent in" in shown.pictures["now"].value)
    assert "-&gt; stop" in shown.pictures["log"].value
    shown.controls["connect"].click()
    wait(lambda: shown.controls["connect"].description == "Connect")


def test_a_panel_closes_when_its_last_view_goes_and_when_another_is_shown(shown, recogniser):
    shown.session.connect(source=recording("mango"), rate=50)
    wait(lambda: shown.session.connected)
    shown.box._view_count = 1  # what the browser reports
    shown.box._view_count = 0
    assert not shown.session.connected and shown.controls["stop"].comm is None
    second = panel.show(recogniser=lambda: recogniser)
    third = panel.show(recogniser=lambda: recogniser)
    assert second.session._stop.is_set() and not third.session._stop.is_set()
    third.close()


def test_every_control_has_words_and_help(shown):
    for name, control in shown.controls.items():
        assert control.description and control.tooltip, name
        assert control.tabbable is not False


def test_a_panel_on_a_page_without_a_kernel_is_a_picture(shown, monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    bundle = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in bundle and "text/plain" in bundle
    if panel.PICTURE.exists():
        assert (
            'src="data:image/png;base64,iVBOR' in bundle["text/html"] and 'alt="The live panel' in bundle["text/html"]
        )
        assert panel.PICTURE.stat().st_size < 500_000


def test_drawings_escape_what_comes_from_outside():
    nasty = "<script>alert(1)</script>"
    drawn = drawings.now(nasty, detail=nasty, alert=nasty, states=[(nasty, "red")])
    drawn += drawings.log([nasty]) + drawings.bars([nasty], [1.0])
    drawn += drawings.traces([nasty], [[1.0], [2.0]], drawn=[nasty], span=10)
    assert "<script>" not in drawn


def test_a_flat_or_short_trace_is_drawn():
    assert "polyline" not in drawings.traces(["NO2"], [[1.0]], drawn=["NO2"], span=10)
    assert "polyline" in drawings.traces(["NO2"], [[1.0]] * 10, drawn=["NO2"], span=10)
    assert "overflow" in drawings.traces(["Benzene"], [[4294967295.0]], drawn=[], span=10)


# three senses


def test_a_picture_and_a_sentence_are_fused_with_what_is_sniffed(session):
    picture = Path(list_pictures().query("scent == 'mango'")["file"].iloc[0])
    session.show(picture, "")
    wait(lambda: session.answer and not session.busy)
    assert list(session.answer.evidence) == ["picture"] and session.answer.name == "mango"
    session.connect(source=recording("mango"), rate=300)
    session.show(picture, "tropical and ripe")
    wait(lambda: session.answer and len(session.answer.evidence) == 3)
    assert session.answer.name == "mango" and not session.message
    session.show(None, "")
    wait(lambda: session.answer and list(session.answer.evidence) == ["smell"])


def test_a_file_that_is_no_picture_is_said_in_the_panel(session, tmp_path):
    (tmp_path / "pear.jpg").write_bytes(b"<html>not here</html>")
    session.show(tmp_path / "pear.jpg", "")
    wait(lambda: session.message)
    assert "picture" in session.message and "pear.jpg" in session.message


def test_the_panel_shows_what_each_sense_says_and_escapes_it():
    said = {"picture": Evidence({"mango": 0.9, "<b>": 0.1}, 0.85), "text": Evidence({}, 0.0, "like nothing known")}
    html = drawings.evidence(said)
    assert "mango 90 %" in html and "&lt;b&gt;" in html and "left out: like nothing known" in html
    assert drawings.evidence({}) == ""


def test_an_uploaded_picture_and_a_sentence_reach_the_session(shown):
    file = Path(list_pictures().query("scent == 'garlic'")["file"].iloc[0])
    shown.controls["text"].value = "sulphurous and pungent"
    upload = {"name": "../garlic.png", "type": "image/png", "size": 1, "content": memoryview(file.read_bytes())}
    shown.controls["upload"].value = ({**upload, "last_modified": datetime.datetime.now(datetime.UTC)},)
    wait(lambda: shown.session.answer and len(shown.session.answer.evidence) == 2)
    wait(lambda: "garlic" in shown.pictures["evidence"].value)
    kept = Path(shown._uploads.name)
    assert [path.name for path in kept.iterdir()] == ["garlic.png"]
    shown.controls["picture"].value = Path(list_pictures().query("scent == 'mango'")["file"].iloc[0])
    wait(lambda: shown.session.answer.evidence["picture"].shares["mango"] > 0.5)  # what was chosen last counts
    shown.close()
    assert not kept.exists()


def test_a_panel_takes_its_whole_tree_along(recogniser):
    from ipywidgets.widgets import widget

    before = set(widget._instances)
    shown = panel.show(recogniser=lambda: recogniser)
    assert len(set(widget._instances) - before) > 50
    shown.close()
    assert set(widget._instances) - before == set()  # one that stays keeps a page from loading again


def test_a_click_that_a_stop_has_outrun_plays_nothing(shown, monkeypatch):
    shown.controls["connect"].click()
    wait(lambda: shown.session.connected and not shown.session.busy)
    shown.controls["scent"].value = 7
    times = iter(["10:00:02", "10:00:01", "10:00:03"])  # Stop came first, though it was clicked later
    monkeypatch.setattr(panel, "_clicked", lambda: next(times))
    shown.controls["stop"].click()
    shown.controls["play"].click()
    air = shown.session.player.virtual
    time.sleep(0.5)
    assert air.air == [] and "Stop came after it" in shown.session.message
    shown.controls["play"].click()
    wait(lambda: air.emitting == 7)


def playing(shown):
    """The air of a virtual player that plays for a minute, once there is a scent in it."""
    shown.controls["connect"].click()
    wait(lambda: shown.session.connected and not shown.session.busy)
    air = shown.session.player.virtual
    shown.session.play(3, seconds=60)
    wait(lambda: air.emitting == 3)
    return air


def test_a_page_that_falls_silent_takes_the_scent_along(shown):
    air = playing(shown)
    shown._beat("page 1")
    spoke = time.monotonic()
    wait(lambda: not air.emitting)
    assert 3 < time.monotonic() - spoke < 5
    wait(lambda: "within 5 s" in shown.pictures["log"].value)


def test_a_page_that_never_spoke_takes_no_scent_along(shown):
    air = playing(shown)
    time.sleep(4.5)  # a page that has spoken may be silent for 4
    assert air.emitting == 3 and "no sign of life" in shown.pictures["log"].value


def test_a_lost_player_shows_at_once_and_says_what_ended_when_it_is_back(shown, tmp_path):
    device = VirtualNeckWear()
    with PtyServer(device, link=tmp_path / "neck") as served:
        shown.controls["player_at"].value = served.port
        shown.controls["connect"].click()
        wait(lambda: shown.session.connected and not shown.session.busy)
        assert shown.session.player.log.run and shown.session.player.status().port == served.port
        shown.controls["scent"].value = 7
        shown.controls["play"].click()
        wait(lambda: device.emitting)
        device.unplug()
        wait(lambda: "player gone" in shown.pictures["now"].value and "Plug it in" in shown.pictures["now"].value, 3)
        device.plug()
        wait(lambda: "player gone" not in shown.pictures["now"].value and "player idle" in shown.pictures["now"].value)
        assert "The scent ended" in shown.pictures["now"].value and "went away" in shown.pictures["now"].value
        shown.session.close()


def test_a_port_is_listed_once(recogniser, monkeypatch):
    port = Port("/dev/ttyUSB7", "CP2102", "A", 0x10C4, 0xEA60, "1-1", True)
    monkeypatch.setattr(panel, "list_ports", lambda: [port])
    monkeypatch.setenv("SMELLKIT_PORT", "/dev/ttyUSB7")
    shown = panel.show(recogniser=lambda: recogniser)
    values = [value for _, value in shown.controls["player"].options]
    assert values.count("/dev/ttyUSB7") == 1 and len(values) == len(set(values))
    shown.close()


def test_shares_are_not_shown_beside_a_smell_that_the_player_has_not(shown, recogniser):
    probabilities = np.array([0.95 if name == "mint" else 0.0 for name in recogniser.pipeline.smell.classes])
    probabilities[recogniser.pipeline.smell.classes.index("peach")] = 0.05
    shown.session.answer = recogniser.pipeline.judge(probabilities)
    shown._draw()
    assert "100 %" not in shown.pictures["bars"].value and " %" not in shown.pictures["bars"].value
