"""The live panel: sniff, see what it is, play it. For a notebook cell, a kernel and a browser.

>>> from smellkit import panel
>>> live = panel.show()
"""

from __future__ import annotations

import base64
import functools
import itertools
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
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
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.scents import SCENTS, list_pictures
from smellkit.odour.session import SPAN, Session
from smellkit.panel import drawings
from smellkit.sensors import SMELLNET

__all__ = ["Panel", "Session", "show"]

PICTURE = paths.HOME / "site" / "images" / "panel.png"
SHOWN = "The live panel: ports and buttons, the answer, curves of six sensors, shares of twelve scents, the link's log"
KEEP = 4  # scents of a mixture that are played
PLAYED = [("as recognised", 0), *((f"{number} {name}", number) for number, name in enumerate(SCENTS, 1))]
RATES = [("1 x", 1.0), ("10 x", 10.0), ("50 x", 50.0)]
AT = {"placeholder": "socket://host:port"}
CONTROLS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # name -> kind, label, help, more
    "nose": ("Dropdown", "Nose", "Port of the sensor board", {}),
    "nose_at": ("Text", "Nose at", "An address instead of a port, for the sensor board", AT),
    "file": ("Dropdown", "Recording", "What the virtual board replays", {}),
    "rate": ("Dropdown", "Speed", "Rows a second, if virtual", {"options": RATES, "index": 1}),
    "model": ("Dropdown", "Recogniser", "What names the smell: see notebook 02 for the weights", {}),
    "player": ("Dropdown", "Player", "Port of the scent player", {}),
    "player_at": ("Text", "Player at", "An address instead of a port, for the scent player", AT),
    "connect": ("Button", "Connect", "Open the nose and the player", {"icon": "plug"}),
    "picture": ("Dropdown", "Picture", "What the smell's source looks like", {}),
    "upload": ("FileUpload", "Upload", "A picture of your own", {"accept": "image/*"}),
    "text": ("Text", "In words", "What it smells of", {"placeholder": "green and watery", "continuous_update": False}),
    "scent": ("Dropdown", "Scent", "What Play plays", {"options": PLAYED}),
    "seconds": ("Dropdown", "Seconds", "How long to play", {"options": [5, 10, 30, 60, 120], "index": 1}),
    "play": ("Button", "Play", "Play the scent that is chosen", {"icon": "play"}),
    "mix": ("Button", "Mix", "Play the recognised mixture as a sequence of slots", {"icon": "random"}),
    "stop": ("Button", "Stop", "Silence at once", {"icon": "stop"}),
}
ROWS = (8, 11, 16)  # where the rows of controls end
PICTURES = ("now", "evidence", "traces", "bars", "slots", "log", "page")
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
        root = recordings.find(folder)
        models = {"fitted here": recogniser or (lambda: Recogniser(Pipeline.fit(root)))}
        if (paths.weights() / "odour" / "manifest.json").exists():
            models["trained weights"] = lambda: Recogniser(Pipeline.load())
        self.session = Session(recogniser=models["fitted here"], on_change=self._draw)
        self.controls: dict[str, Any] = {}
        self.pictures: dict[str, Any] = {}
        self._picture: Path | None = None  # what was chosen or uploaded last
        self._uploads = tempfile.TemporaryDirectory(prefix="smellkit-")
        self._stop_latency: float | None = None
        self._count = 0
        self._pages: Counter[str] = Counter()  # signs of life by loading of the page
        self._stopped: str | None = None  # when Stop was clicked last, by the page's clock
        self.box = self._lay_out(root, models)
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
        for widget in list(_tree(self.box)):  # every widget: one that stays alive keeps the page from loading again
            for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
                if part is not None:
                    part.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if not headless():
            return self.box._repr_mimebundle_(**kwargs)
        bundle = {"text/plain": "The live panel; open this notebook in JupyterLab to use it."}
        if PICTURE.exists():  # a page has no kernel: what the panel looks like has to do
            source = f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
            picture = f'<img src="{source}" alt="{SHOWN}" style="width:100%;min-width:40rem">'  # scrolled on a phone
            bundle["text/html"] = f'<figure class="smell-figure">{picture}</figure>'
        return bundle

    # the widgets

    def _lay_out(self, root: Path, models: dict[str, Callable[[], Recogniser]]) -> Any:
        pictures = self.pictures = {name: _widget("HTML") for name in PICTURES}
        offered = self._offered(root, models)
        for name, (kind, label, help, more) in CONTROLS.items():
            more = {"options": offered[name]} if name in offered else more
            self.controls[name] = _widget(kind, description=label, tooltip=help, **more)
        mix = functools.partial(self._play, mixture=True)
        for name, click in {"connect": self._connect, "play": self._play, "mix": mix, "stop": self._stop}.items():
            button = _past_the_cell(self.controls[name].add_class(f"smell-{name}"))
            button.on_click(lambda _, click=click: click())
        beat = _past_the_cell(_widget("Text").add_class("smell-beat"))
        control, look = self.controls, self._look
        for widget, react in (
            (control["file"], self.session.replay),
            (control["picture"], look),
            (control["upload"], lambda files: look(self._kept(files[0]) if files else None)),
            (control["text"], lambda _: look(self._picture)),
            (beat, self._beat),
        ):
            widget.observe(lambda change, react=react: react(change.new), names="value")
        every = list(control.values())
        rows = [_box("row", *every[begin:end]) for begin, end in itertools.pairwise((0, *ROWS))]
        # what changes its height stands below the buttons: Stop must not move under a hand
        top = _box("card", *rows, pictures["now"])
        sensors, senses = _card("Sensors", pictures["traces"]), _card("What each sense says", pictures["evidence"])
        shares = _card("Shares of the twelve scents", pictures["bars"], pictures["slots"])
        left, right = _box("column", sensors, senses), _box("column", shares, _card("Link", pictures["log"]))
        return _box("", top, _box("grid", left, right), beat, pictures["page"], _widget("HTML", drawings.chrome()))

    def _offered(self, root: Path, models: dict[str, Callable[[], Recogniser]]) -> dict[str, list]:
        """What the lists of this machine and this folder offer."""
        given = os.environ.get("SMELLKIT_PORT", "")
        ports = [(f"{port.device}  {port.name}", port.device) for port in list_ports() if port.device != given]
        first = [(Path(given).name, given)] if given else []
        return {
            "nose": [("virtual board", "virtual"), *ports],
            "file": list(_recordings(root).items()),
            "model": list(models.items()),
            "player": [*first, ("virtual NeckWear", "virtual"), *ports],
            "picture": [("none", None), *_pictures(root).items()],
        }

    # clicks

    def _look(self, picture: Path | None) -> None:
        """Show a picture, the one that was chosen or uploaded last, and the sentence."""
        self._picture = picture
        self.session.show(picture, self.controls["text"].value.strip())

    def _kept(self, uploaded: Any) -> Path:
        """The file of an uploaded picture, in a folder of this panel that goes with it."""
        path = Path(self._uploads.name) / Path(str(uploaded["name"])).name
        path.write_bytes(bytes(uploaded["content"]))
        return path

    def _connect(self) -> None:
        if self.session.connected:
            self.session.disconnect()
            return
        value = {name: control.value for name, control in self.controls.items() if hasattr(control, "value")}
        at = {name: value[f"{name}_at"].strip() or value[name] for name in ("nose", "player")}
        self.session.connect(**at, source=value["file"], rate=value["rate"], recogniser=value["model"])

    def _play(self, *, mixture: bool = False) -> None:
        clicked = _clicked()
        if clicked is not None and self._stopped is not None and clicked < self._stopped:  # it waited in a queue
            self.session.message = "An older click was dropped: Stop came after it."
            return
        scent = None if mixture else self.controls["scent"].value or None
        self.session.play(scent, seconds=self.controls["seconds"].value, mixture=mixture)

    def _stop(self) -> None:
        self._stopped = max(filter(None, [self._stopped, _clicked()]), default=None)
        began = Clock.now()
        self.session.stop()
        if player := self.session.player:
            sent = [
                entry["at"]
                for entry in list(player.log.entries)
                if entry["direction"] == "out" and entry["at"] >= began
            ]
            self._stop_latency = min(sent) - began if sent else None

    def _beat(self, sign: str) -> None:
        """The page is there and seen. One that was loaded again has forgotten how many views there were."""
        page = sign.partition(" ")[0]
        self._pages[page] += 1
        if self._pages[page] == 2 and len(self._pages) > 1:
            self.box._view_count = 1
        self.session.keep()

    def _viewed(self, change: Any) -> None:
        if not change.new and change.old:  # the last view went: the cell was deleted, cleared, or runs again
            self.close()

    # what is shown; called from the worker too, so it only sets values

    def _draw(self) -> None:
        session, answer, (playing, _) = self.session, self.session.answer, self.session.playing
        rows = [row.values for row in list(session.rows)]
        nose = session.recogniser.nose if session.recogniser else SMELLNET
        units = [column.unit for column in nose.columns.values()]
        known = answer is not None and not (answer.reason and answer.name not in SCENTS)  # else they share out little
        shares = answer.shares if answer and known else None
        plan = session.plan.slots if session.plan else ()
        at = Clock.now() - session.plan_began if session.plan and playing else None
        self._count += 1
        drawn = {
            "now": self._now(),
            "traces": drawings.traces(tuple(nose.columns), rows, drawn=nose.gas, span=SPAN, units=units),
            "evidence": drawings.evidence(answer.evidence if answer else {}),
            "bars": drawings.bars(SCENTS, shares, playing=playing, keep=KEEP),
            "slots": drawings.slots(plan, at=at),
            "log": drawings.log(self._log()),
            "page": drawings.pulse(self._count, live=session.connected),
        }
        for name, html in drawn.items():
            self.pictures[name].value = html
        self.controls["connect"].description = "Disconnect" if session.connected else "Connect"
        self.controls["connect"].disabled = bool(session.busy)

    def _now(self) -> str:
        session, answer, share = self.session, self.session.answer, None
        if answer is not None:
            what, share = answer.name.replace("_", " "), answer.confidence
            detail = f"{100 * share:.0f} % sure, {1000 * answer.seconds:.0f} ms from the row to the answer"
        elif session.connected and session.recogniser is not None:
            what, share = "Sniffing", session.recogniser.filled
            detail = f"the first window is {100 * share:.0f} % full"
        else:
            what, detail = session.busy or "Not connected", "" if session.busy else "choose the ports, then Connect"
        player = session.player.status() if session.player else None
        lost = f"The player is gone: {player.trouble}. Plug it in again." if player and not player.connected else ""
        ended = session.player.ended if session.player else ""
        over = "" if ended in ("", "played", "stopped", "replaced") else f"The scent ended: {ended}"
        alert = session.message or session.trouble or lost or over  # the last click's trouble first
        states = self._states(player) if session.connected else []
        return drawings.now(what, detail=detail, states=states, share=share, alert=alert)

    def _states(self, player: Any) -> list[tuple[str, str]]:
        """Return what the nose, the recogniser and the player are doing, in a few words each, with a colour."""
        states, (playing, left) = [], self.session.playing
        if self.session.answer is not None:
            reason = self.session.answer.reason.replace("_", " ")
            states.append((f"abstains: {reason}", drawings.AMBER) if reason else ("would play it", drawings.GREEN))
        if player and not player.connected:
            states.append(("player gone", drawings.RED))
        elif playing:
            request = f"asked for {playing} {SCENTS[playing - 1].replace('_', ' ')}, {left:.0f} s left"
            states.append((request, drawings.AMBER))
        else:
            states.append(("player idle", drawings.BLUE))
        if player and not player.guarded:
            states.append(("no watchdog: frames of 2 s", drawings.AMBER))
        if self._stop_latency is not None:
            states.append((f"last stop sent in {1000 * self._stop_latency:.0f} ms", drawings.BLUE))
        return states

    def _log(self) -> list[str]:
        session, lines = self.session, []
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


def _widget(kind: str, *args: Any, **traits: Any) -> Any:
    import ipywidgets

    return getattr(ipywidgets, kind)(*args, **traits)


def _box(look: str, *parts: Any) -> Any:
    """Return a box that style.css lays out: a row, column, card or grid, or the whole."""
    kind = "VBox" if look in ("", "column", "card") else "Box"
    return _widget(kind, parts).add_class(f"smell-{look}" if look else "smell")


def _card(title: str, *parts: Any) -> Any:
    return _box("card", _widget("HTML", f"<h3>{title}</h3>"), *parts)


def _tree(widget: Any) -> Iterator[Any]:
    """A widget and all that is in it, the whole last."""
    for child in getattr(widget, "children", ()):
        yield from _tree(child)
    yield widget


def _past_the_cell(control: Any) -> Any:
    """Let what `control` sends through while a cell is running, and return it.

    JupyterLab sends it to a thread of its own in the kernel; ipykernel 7.4 sends it back to the one that made the
    control, where the running cell blocks it. Other versions have no such rule, and don't mind this one.
    """
    if control.comm is not None:
        control.comm._reply_subshell_for = lambda data, default: default
    return control


def _clicked() -> str | None:
    """When the page sent what is being handled, by its own clock; nothing outside of a kernel."""
    from IPython import get_ipython

    kernel: Any = getattr(get_ipython(), "kernel", None)
    date: Any = (kernel.get_parent() or {}).get("header", {}).get("date") if kernel else None
    return date.isoformat() if hasattr(date, "isoformat") else date


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
