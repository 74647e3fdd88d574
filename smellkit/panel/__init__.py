"""The live panel: sniff, see what it is, play it. For a notebook cell, a kernel and a browser.

>>> from smellkit import panel
>>> live = panel.show()
"""

from __future__ import annotations

import base64
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smellkit import paths
from smellkit.device.clock import Clock
from smellkit.device.guard import listen_to_signals
from smellkit.device.link import list_ports
from smellkit.errors import DataError
from smellkit.notebook import headless
from smellkit.odour import recordings
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Evidence, Pipeline
from smellkit.odour.scents import SCENTS, list_pictures
from smellkit.panel import drawings
from smellkit.panel.session import SPAN, Session
from smellkit.sensors import SMELLNET

__all__ = ["Panel", "Session", "show"]

PICTURE = paths.HOME / "site" / "images" / "panel.png"
KEEP = 4  # scents of a mixture that are played
RECOGNISED = 0  # in the list of scents: whatever the nose smells
_open: weakref.WeakSet[Panel] = weakref.WeakSet()  # two panels would fight for the ports: a new one closes the others


def show(folder: str | Path | None = None, *, recogniser: Callable[[], Recogniser] | None = None) -> Panel:
    """Return a live panel; as the last line of a cell it is shown. Nothing is opened before Connect is clicked.

    `folder` has the recordings to replay and to learn from, the sample by default. `recogniser` makes another
    recogniser than one fitted to `folder`; the trained weights, for a real nose, are offered beside it. Showing a new
    panel closes the one before; deleting or running its cell again does too. A port in SMELLKIT_PORT is offered first,
    as the command line does.
    """
    for older in list(_open):
        older.close()
    return Panel(folder, recogniser=recogniser)


class Panel:
    """The widgets around a `Session`. `close` stops the player, closes the ports and takes the widgets away."""

    def __init__(self, folder: str | Path | None = None, *, recogniser: Callable[[], Recogniser] | None = None):
        import ipywidgets as widgets

        root = recordings.find(folder)
        models = {"fitted here": recogniser or (lambda: Recogniser(Pipeline.fit(root)))}
        if (paths.weights() / "odour" / "manifest.json").exists():
            models["trained weights"] = lambda: Recogniser(Pipeline.load())
        self.session = Session(recogniser=models["fitted here"], on_change=self._draw)
        self._widgets = widgets
        self.controls: dict[str, Any] = {}
        self.pictures: dict[str, Any] = {}
        self._picture: Path | None = None  # what was chosen or uploaded last
        self._uploads = tempfile.TemporaryDirectory(prefix="smellkit-")
        self._stop_latency: float | None = None
        self._count = 0
        self._pages: dict[str, int] = {}  # signs of life by loading of the page
        self._stopped: str | None = None  # when Stop was clicked last, by the page's clock
        self._tree: list[Any] = []  # every widget: one that stays alive keeps the page from loading again
        self.box = self._lay_out(_recordings(root), models, _pictures(root))
        self.box._view_count = 0  # from now on the browser tells how many views there are
        self.box.observe(self._viewed, names="_view_count")
        self._draw()
        listen_to_signals()  # here, on the main thread: the player is opened by another one
        _open.add(self)

    def close(self) -> None:
        """Stop, close, end: nothing is left open and no thread is left running; a second time does nothing."""
        _open.discard(self)
        self.session.close()
        self._uploads.cleanup()
        for widget in reversed(self._tree):
            for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if not headless():
            return self.box._repr_mimebundle_(**kwargs)
        bundle = {"text/plain": "The live panel; open this notebook in JupyterLab to use it."}
        if PICTURE.exists():  # a page has no kernel: what the panel looks like has to do
            bundle["image/png"] = base64.b64encode(PICTURE.read_bytes()).decode()
        return bundle

    # the widgets

    def _lay_out(
        self, files: dict[str, Path], models: dict[str, Callable[[], Recogniser]], shown: dict[str, Path]
    ) -> Any:
        choose, button, box = self._choose, self._button, self._box
        devices = box("row", *self._devices(files, models))
        scents = [("as recognised", RECOGNISED), *((f"{n} {name}", n) for n, name in enumerate(SCENTS, 1))]
        actions = box(
            "row",
            choose("scent", "Scent", scents, "What Play plays"),
            choose("seconds", "Seconds", [5, 10, 30, 60, 120], "How long to play", at=1),
            button("play", "Play", "play", "Play the scent that is chosen", self._play, "smell-go"),
            button("mix", "Mix", "random", "Play the recognised mixture as a sequence of slots", self._mix),
            button("stop", "Stop", "stop", "Silence at once", self._stop, "smell-stop"),
        )
        for name in ("play", "mix", "stop", "connect"):
            _past_the_cell(self.controls[name])
        names = ("style", "now", "evidence", "traces", "bars", "slots", "log", "pulse", "script")
        self.pictures = pictures = {name: self._made(self._widgets.HTML()) for name in names}
        pictures["style"].value = drawings.style()
        pictures["script"].value = drawings.script()
        left = [self._card("Sensors", pictures["traces"])]
        left.append(self._card("What each sense says", pictures["evidence"]))
        right = [self._card("Shares of the twelve scents", pictures["bars"], pictures["slots"])]
        right += [self._card("Link", pictures["log"])]
        grid = box("grid", box("column", *left), box("column", *right))
        beat = self._made(self._widgets.Text()).add_class("smell-beat")
        beat.observe(self._beat, names="value")
        _past_the_cell(beat)
        # what changes its height stands below the buttons: Stop must not move under a hand
        top = self._card("", devices, box("row", *self._senses(shown)), actions, pictures["now"])
        return box("", pictures["style"], top, grid, beat, pictures["pulse"], pictures["script"])

    def _devices(self, files: dict[str, Path], models: dict[str, Callable[[], Recogniser]]) -> list[Any]:
        """Return what stands in the first row: which nose, recogniser and player, and Connect."""
        choose = self._choose
        given = [(Path(port).name, port) for port in [os.environ.get("SMELLKIT_PORT", "")] if port]
        ports = [(f"{port.device}  {port.name}", port.device) for port in list_ports()]
        ports = [port for port in ports if port[1] not in dict(given).values()]
        named = "What names the smell: see notebook 02 for the weights"
        controls = [
            choose("nose", "Nose", [("virtual board", "virtual"), *ports], "Port of the sensor board"),
            self._address("nose_at", "Nose at", "An address instead of a port, for the sensor board"),
            choose("file", "Recording", list(files.items()), "What the virtual board replays"),
            choose("rate", "Speed", [("1 x", 1.0), ("10 x", 10.0), ("50 x", 50.0)], "Rows a second, if virtual", at=1),
            choose("model", "Recogniser", list(models.items()), named),
            choose("player", "Player", [*given, ("virtual NeckWear", "virtual"), *ports], "Port of the scent player"),
            self._address("player_at", "Player at", "An address instead of a port, for the scent player"),
            self._button("connect", "Connect", "plug", "Open the nose and the player", self._connect, "smell-connect"),
        ]
        self.controls["file"].observe(lambda change: self.session.replay(change.new), names="value")
        return controls

    def _senses(self, shown: dict[str, Path]) -> list[Any]:
        """Return what stands in the second row: a picture of the folder, one to upload, and a sentence."""
        picture = self._choose(
            "picture", "Picture", [("none", None), *shown.items()], "What the smell's source looks like"
        )
        upload = self._made(
            self._widgets.FileUpload(accept="image/*", description="Upload", tooltip="A picture of your own")
        )
        text = self._made(
            self._widgets.Text(
                description="In words",
                tooltip="What it smells of",
                placeholder="green and watery",
                continuous_update=False,
            )
        )
        self.controls |= {"upload": upload, "text": text}
        picture.observe(lambda change: self._look(change.new), names="value")
        upload.observe(lambda change: self._look(self._kept(change.new[0]) if change.new else None), names="value")
        text.observe(lambda change: self._look(self._picture), names="value")
        return [picture, upload, text]

    def _look(self, picture: Path | None) -> None:
        """Show a picture, the one that was chosen or uploaded last, and the sentence."""
        self._picture = picture
        self.session.show(picture, self.controls["text"].value.strip())

    def _kept(self, uploaded: Any) -> Path:
        """The file of an uploaded picture, in a folder of this panel that goes with it."""
        path = Path(self._uploads.name) / Path(str(uploaded["name"])).name
        path.write_bytes(bytes(uploaded["content"]))
        return path

    def _choose(self, name: str, label: str, options: list, help: str, *, at: int = 0) -> Any:
        made = self._widgets.Dropdown(options=options, index=at, description=label, tooltip=help)
        self.controls[name] = self._made(made)
        return made

    def _address(self, name: str, label: str, help: str) -> Any:
        made = self._widgets.Text(description=label, tooltip=help, placeholder="socket://host:port")
        self.controls[name] = self._made(made)
        return made

    def _made(self, widget: Any) -> Any:
        self._tree.append(widget)
        return widget

    def _button(self, name: str, label: str, icon: str, help: str, click: Callable[[], None], look: str = "") -> Any:
        button = self._made(self._widgets.Button(description=label, icon=icon, tooltip=help))
        button.on_click(lambda _: click())
        self.controls[name] = button.add_class(look) if look else button
        return button

    def _box(self, look: str, *parts: Any) -> Any:
        """Return a box that style.css lays out: a row, column, card or grid, or the whole."""
        kind = self._widgets.VBox if look in ("", "column", "card") else self._widgets.Box
        return self._made(kind(parts)).add_class(f"smell-{look}" if look else "smell")

    def _card(self, title: str, *parts: Any) -> Any:
        return self._box("card", *([self._made(self._widgets.HTML(drawings.title(title)))] if title else []), *parts)

    # clicks

    def _connect(self) -> None:
        if self.session.connected:
            self.session.disconnect()
            return
        chosen = {name: self.controls[name].value for name in ("nose", "player", "rate")}
        for name in ("nose", "player"):
            chosen[name] = self.controls[f"{name}_at"].value.strip() or chosen[name]
        self.session.connect(source=self.controls["file"].value, recogniser=self.controls["model"].value, **chosen)

    def _play(self) -> None:
        if self._outrun():
            return
        self.session.play(self.controls["scent"].value or None, seconds=self.controls["seconds"].value)

    def _mix(self) -> None:
        if self._outrun():
            return
        self.session.mix(seconds=self.controls["seconds"].value)

    def _outrun(self) -> bool:
        """Whether this click waited in a queue while a later one on Stop went before it."""
        clicked = _clicked()
        late = clicked is not None and self._stopped is not None and clicked < self._stopped
        if late:
            self.session.message = "An older click was dropped: Stop came after it."
        return late

    def _stop(self) -> None:
        self._stopped = max(filter(None, [self._stopped, _clicked()]), default=None)
        began = Clock.now()
        self.session.stop()
        if player := self.session.player:
            sent = [entry["at"] for entry in player.log.entries if entry["direction"] == "out" and entry["at"] >= began]
            self._stop_latency = min(sent) - began if sent else None

    def _beat(self, change: Any) -> None:
        """The page is there and seen. One that was loaded again has forgotten how many views there were."""
        page = change.new.partition(" ")[0]
        self._pages[page] = self._pages.get(page, 0) + 1
        if self._pages[page] == 2 and len(self._pages) > 1:
            self.box._view_count = 1
        self.session.keep()

    def _viewed(self, change: Any) -> None:
        if not change.new and change.old:  # the last view went: the cell was deleted, cleared, or runs again
            self.close()

    # what is shown; called from the worker too, so it only sets values

    def _draw(self) -> None:
        session, pictures = self.session, self.pictures
        rows = [row.values for row in list(session.rows)]
        answer, (playing, _) = session.answer, session.playing
        pictures["now"].value = self._now()
        nose = session.recogniser.nose if session.recogniser else SMELLNET
        pictures["traces"].value = drawings.traces(tuple(nose.columns), rows, drawn=nose.gas, span=SPAN)
        known = answer is not None and not (answer.reason and answer.name not in SCENTS)  # else they share out little
        shares = answer.shares if answer and known else None
        said = answer.evidence.items() if answer else ()
        pictures["evidence"].value = drawings.evidence(
            {sense: (_largest(one), one.trust, one.why) for sense, one in said}
        )
        pictures["bars"].value = drawings.bars(SCENTS, shares, playing=playing, keep=KEEP)
        at = Clock.now() - session.plan_began if session.plan and playing else None
        pictures["slots"].value = drawings.slots(session.plan.slots if session.plan else (), at=at)
        pictures["log"].value = drawings.log(self._log())
        self._count += 1
        pictures["pulse"].value = drawings.pulse(self._count, live=session.connected)
        self.controls["connect"].description = "Disconnect" if session.connected else "Connect"
        self.controls["connect"].disabled = bool(session.busy)

    def _now(self) -> str:
        session, answer = self.session, self.session.answer
        share = None
        if answer is None and (not session.connected or session.recogniser is None):
            what, detail = session.busy or "Not connected", "" if session.busy else "choose the ports, then Connect"
        elif answer is None:
            what, share = "Sniffing", session.recogniser.filled if session.recogniser else 0.0
            detail = f"the first window is {100 * share:.0f} % full"
        else:
            what, share = answer.name.replace("_", " "), answer.confidence
            detail = f"{100 * share:.0f} % sure, {1000 * answer.seconds:.0f} ms from the row to the answer"
        chips = [drawings.chip(text, colour=colour) for text, colour in self._states()]
        return drawings.now(what, detail=detail, chips=chips, share=share, alert=self._alert())

    def _alert(self) -> str:
        """What is wrong at this moment, the last click's trouble first."""
        player = self.session.player.status() if self.session.player else None
        lost = f"The player is gone: {player.trouble}. Plug it in again." if player and not player.connected else ""
        return self.session.message or self.session.trouble or lost

    def _states(self) -> list[tuple[str, str]]:
        """Return what the nose, the recogniser and the player are doing, in a few words each, with a colour."""
        session = self.session
        if not session.connected:
            return []
        states = []
        if session.answer is not None:
            reason = session.answer.reason.replace("_", " ")
            states.append((f"abstains: {reason}", drawings.AMBER) if reason else ("would play it", drawings.GREEN))
        playing, left = session.playing
        request = f"asked for {playing} {SCENTS[playing - 1].replace('_', ' ')}, {left:.0f} s left"
        player = session.player.status() if session.player else None
        if player and not player.connected:
            states.append(("player gone", drawings.RED))
        else:
            states.append((request, drawings.AMBER) if playing else ("player idle", drawings.BLUE))
        if player and not player.guarded:
            states.append(("no watchdog: frames of 2 s", drawings.AMBER))
        if self._stop_latency is not None:
            states.append((f"last stop sent in {1000 * self._stop_latency:.0f} ms", drawings.BLUE))
        return states

    def _log(self) -> list[str]:
        session = self.session
        lines = []
        if session.nose is not None:
            state = session.nose.status()
            dropped = ", ".join(f"{count} {reason}" for reason, count in state["dropped"].items()) or "none"
            lines.append(f"nose    {len(session.rows)} rows here, dropped: {dropped}, opened {state['connections']} x")
        if session.player is not None:
            ends = "within 5 s" if session.page_heard else "by itself only: the page gives no sign of life"
            lines.append(f"page    closed or hidden, a scent ends {ends}")
            latency = session.player.status().latency
            if latency.median is not None:
                lines.append(f"player  reply after {1000 * latency.median:.0f} ms (median of {latency.count})")
            for entry in reversed(list(session.player.log.entries)[-30:]):
                arrow = {"out": "->", "in": "<-"}.get(entry["direction"], "  ")
                lines.append(f"{entry['time'][11:23]} {arrow} {entry['what']}  {entry['hex']}".rstrip())
        return lines


def _clicked() -> str | None:
    """When the page sent what is being handled, by its own clock; nothing outside of a kernel."""
    from IPython import get_ipython

    kernel: Any = getattr(get_ipython(), "kernel", None)
    date: Any = (kernel.get_parent() or {}).get("header", {}).get("date") if kernel else None
    return date.isoformat() if hasattr(date, "isoformat") else date


def _past_the_cell(button: Any) -> None:
    """Let clicks on `button` through while a cell is running.

    JupyterLab sends them to a thread of their own in the kernel; ipykernel 7.4 sends them back to the one that made the
    button, where the running cell blocks them. Other versions have no such rule, and don't mind this one.
    """
    if button.comm is not None:
        button.comm._reply_subshell_for = lambda data, default: default


def _largest(evidence: Evidence, *, best: int = 3) -> list[tuple[str, float]]:
    """The `best` largest shares of what a sense says, as far as they count."""
    return [one for one in sorted(evidence.shares.items(), key=lambda item: -item[1])[:best] if one[1] >= 0.01]


def _pictures(root: Path) -> dict[str, Path]:
    """Return a picture to look at by name: the first of each scent; none where the folder has none."""
    if not (root / "images").is_dir():
        return {}
    table = list_pictures(root).drop_duplicates("scent")
    return {name.replace("_", " "): Path(file) for name, file in zip(table["scent"], table["file"], strict=True)}


def _recordings(root: Path) -> dict[str, Path]:
    """Return recordings to replay by name: the first of each substance of the testing split, or of what there is."""
    for part in ("base/testing", "base/training", "smell_data"):
        files = sorted((root / part).glob("*/*.csv"), reverse=True)
        if files:
            first = {path.parent.name.replace("_", " "): path for path in files}
            return dict(sorted(first.items()))
    raise DataError(f"No recordings in {root}", hint="leave the folder away to use the sample")
