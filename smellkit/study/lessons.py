"""What the notebooks of a course share: parts that a data folder lacks, drawings to play with, and the glossary.

A term is marked where it first appears, as `<dfn>conductance</dfn>`; the sentence around it explains it, and is what
site/glossary.qmd shows. `python -m smellkit.study.lessons` writes that page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from smellkit import paths, plots
from smellkit.device.link import Link
from smellkit.device.neckwear import NeckWear
from smellkit.device.virtual import VirtualNeckWear
from smellkit.errors import DataError
from smellkit.notebook import NotebookRun, headless
from smellkit.odour.recordings import BASES, find
from smellkit.study.device.fake import FakeClock, MemoryPort

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GLOSSARY = paths.HOME / "site" / "glossary.qmd"
PARTS = {  # of a SmellNet folder -> the folders or files of which it needs one
    "recordings of substances": ("smell_data", *(f"{base}/training" for base in BASES)),
    "recordings to test on": ("smell_data", *(f"{base}/testing" for base in BASES)),
    "mixtures": ("mixture/training_new", "mixture/training_seen"),
    "mixtures to test on": ("mixture/test_seen",),
    "mixtures of another day": ("mixture/test_unseen",),
    "pictures": ("images",),
    "descriptions": ("smell_descriptions.json",),
}


def lacking(data: str, *parts: str) -> list[str]:
    """Which of `parts` of `PARTS` the folder `data` has not; DataError for what is no folder at all."""
    try:
        root = find(data)
    except DataError:  # another nose's folder, or nothing
        if not (root := Path(data).expanduser()).is_dir():
            raise
    return [part for part in parts if not any((root / name).exists() for name in PARTS[part])]


def needs(run: NotebookRun, data: str, *parts: str) -> None:
    """Skip the rest of the notebook, and say so, where the folder `data` lacks one of `parts` of `PARTS`."""
    if absent := lacking(data, *parts):
        places = " or ".join(PARTS[absent[0]])
        skip(run, f"{Path(data).name} has no {', no '.join(absent)} ({places}), and this notebook needs them.")


def skip(run: NotebookRun, why: str) -> None:
    """Finish `run`; from here on every cell does nothing, and the first of them says `why`.

    Cells that set parameters or start the run again do run, and end the skipping.
    """
    from IPython.core.getipython import get_ipython

    shell, shown = get_ipython(), list[str]()
    run.finish({"skipped": why})
    if shell is None:
        raise DataError(why)

    def nothing(lines: list[str]) -> list[str]:
        text = "".join(lines)
        if "notebook.start(" in text or text.startswith("data:"):
            shell.input_transformers_cleanup.remove(nothing)
            return lines
        shown[:] = shown or [text]
        words = f"**Skipped.** {why.rstrip('.')}. The sample has all: leave `data` empty."
        return [f"import IPython; IPython.display.Markdown({'> ' + words!r})\n"] if shown == [text] else []

    shell.input_transformers_cleanup.append(nothing)


def explore(
    draw: Callable[..., Figure],
    sliders: Mapping[str, tuple[float, float, float]],
    states: Mapping[str, Mapping[str, float]],
    *,
    alt: str,
) -> Any:
    """A figure that follows `sliders`, name -> (lowest, highest, at first), in a live kernel.

    On a page, which has no kernel: the figure in each of `states`, name -> values of sliders, one opened at a time.
    `draw` takes the sliders by name.
    """
    first = {name: at for name, (_, _, at) in sliders.items()}
    if headless():
        from IPython.display import HTML

        text, begin = "", f'<details class="results" name="{escape(alt)}"'
        for name, state in states.items():
            svg = plots.svg(draw(**{**first, **state}), alt=f"{alt}: {name}")
            shown = f'<summary>{escape(name)}</summary><figure class="smell-figure">{svg}</figure>'
            text += f"{begin}{'' if text else ' open'}>{shown}</details>"  # opening another one closes the first
        return HTML(text)
    from ipywidgets import HTML as Picture
    from ipywidgets import FloatSlider, VBox

    look = {"continuous_update": False, "readout_format": ".2f", "style": {"description_width": "9rem"}}
    handles = {
        name: FloatSlider(at, min=low, max=high, step=(high - low) / 40, description=name.replace("_", " "), **look)
        for name, (low, high, at) in sliders.items()
    }
    picture = Picture()

    def redraw(change: Any = None) -> None:
        picture.value = plots.svg(draw(**{name: handle.value for name, handle in handles.items()}), alt=alt)

    for handle in handles.values():
        handle.observe(redraw, names="value")
    redraw()
    return VBox([*handles.values(), picture])


def player(port: str) -> NeckWear:
    """The scent player at `port`; where nobody watches, a virtual one's clock jumps from event to event."""
    if port != "virtual" or not headless():
        return NeckWear.open(port)
    clock = FakeClock()
    device = VirtualNeckWear(now=clock.now)
    clock.watch(device.due)
    link = lambda: Link(MemoryPort(device, clock=clock), name="memory")  # noqa: E731
    return NeckWear(link, name=port, clock=cast(Any, clock), virtual=device)


def wait(neck: NeckWear, seconds: float) -> None:
    """Let `seconds` of the player's own time pass, which a clock that jumps does at once."""
    neck._clock.sleep(seconds)


def terms(folder: Path = paths.HOME / "notebooks") -> dict[str, tuple[str, Path, str]]:
    """Every marked term -> the sentence that explains it, its notebook and that notebook's title, where it is first."""
    terms: dict[str, tuple[str, Path, str]] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        words = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        title = words[0].splitlines()[0].lstrip("# ")
        for paragraph in re.split(r"\n\s*\n", "\n\n".join(words)):
            for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z<`*$])", " ".join(paragraph.split())):
                plain = re.sub("</?dfn>", "", sentence).lstrip("> ")
                plain = re.sub(r"\]\((\d\d_)", r"](notebooks/\1", plain)  # links lead there from site/, too
                for term in re.findall(r"<dfn>(.*?)</dfn>", sentence):
                    terms.setdefault(term, (plain, path, title))
    return terms


def glossary(folder: Path = paths.HOME / "notebooks") -> str:
    """The page of all terms as Quarto's markdown: term, explanation, and where it was first used."""
    about = "subtitle: Words of the notebooks, as they are explained where they first appear"
    rows = sorted(terms(folder).items(), key=lambda item: item[0].lower())
    lines = [f"**{term}**: {said} [{title}](notebooks/{path.name})\n" for term, (said, path, title) in rows]
    made = "Made from the notebooks by `python -m smellkit.study.lessons`; what to correct stands there.\n"
    return "\n".join(["---", "title: Glossary", about, "---", "", *lines, made])


def source(thing: Any) -> Any:
    """The source of a class or function as a cell's output, coloured."""
    import inspect
    import textwrap

    from IPython.display import Markdown

    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing)).rstrip()}\n```")


if __name__ == "__main__":
    print(paths.write_text(GLOSSARY, glossary()))
