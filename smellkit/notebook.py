"""What a notebook needs in its third cell: seeds, figure style, and a run folder that keeps its figures and result."""

from __future__ import annotations

import functools
import os
import random
import sys
from typing import TYPE_CHECKING, Any

from smellkit import paths, runs
from smellkit.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SVG = 400_000  # characters; a figure of many points is smaller as a PNG


class NotebookRun(runs.Run):
    """A run folder that also keeps and shows figures.

    >>> run = notebook.start("odour-data", seed=7)
    >>> run.figure(plots.bars({"apple": 0.8}), "apple", alt="Apple is recognised in 80 % of its recordings")
    >>> run.finish({"accuracy": 0.8})
    """

    def figure(self, figure: Figure, name: str, *, alt: str = "") -> None:
        """Save `figure` as <name>.png, .svg and .pdf in the run folder; show it once, as SVG in the page's own colours.

        `alt` says in words what the figure shows, for readers who don't see it.
        """
        from IPython.core.getipython import get_ipython
        from IPython.display import HTML, Image, display

        from smellkit import plots

        alt = alt or name.replace("-", " ")
        for kind in ("pdf", "svg", "png"):
            path = self.keep(f"{name}.{kind}", functools.partial(figure.savefig, dpi=200))
        svg = plots.svg(figure, alt=alt)
        if "matplotlib.pyplot" in sys.modules:  # which would show it a second time at the end of the cell
            sys.modules["matplotlib.pyplot"].close(figure)
        if get_ipython() and len(svg) <= LARGEST_SVG:
            display(HTML(f'<figure class="smell-figure">{svg}</figure>'), metadata={"text/html": {"alt": alt}})
        elif get_ipython():
            display(Image(path.read_bytes(), format="png", retina=True, alt=alt))

    def finish(self, scores: dict[str, Any]) -> None:  # type: ignore[override]
        """Write scores and stamp, which says that the run is finished, and print where they and the figures lie."""
        super().finish(scores)
        folder = self.folder.relative_to(paths.HOME) if self.folder.is_relative_to(paths.HOME) else self.folder
        print(f"Figures (PNG, SVG, PDF) and scores: {folder.as_posix()}")


def start(name: str, *, seed: int | None = None, **params: Any) -> NotebookRun:
    """Begin the notebook's run: seed Python, numpy and torch, set the figure style, make the run folder.

    Without `seed` nothing is seeded and torch is not loaded. `seed` and `params` are kept as the run's parameters.
    """
    from smellkit import plots

    if headless():  # no progress bars and no chatter: on a page they are noise, and as widgets they need a network
        from tqdm.notebook import tqdm_notebook

        quiet = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
        os.environ.update(quiet | os.environ)
        begin = tqdm_notebook.__init__  # which does not look at TQDM_DISABLE
        tqdm_notebook.__init__ = lambda self, *args, **given: begin(self, *args, **given | {"disable": True})
    if seed is not None:
        import numpy as np
        import torch

        if not 0 <= seed < 2**32:
            raise OptionError(f"seed is {seed}", hint=f"a whole number from 0 to {2**32 - 1}")
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        params = {"seed": seed} | params
    plots.style()
    return NotebookRun(**vars(runs.start(name, params)))


def headless() -> bool:
    """Whether nobody watches: the batch runner sets SMELLKIT_HEADLESS for the notebooks that it executes."""
    return os.environ.get("SMELLKIT_HEADLESS", "") not in ("", "0")
