"""Draw the twelve odorants: small pictures, each another one, so that the sample needs no one's photographs.

Points are complex numbers, x + iy, in a square of 1 x 1 around the middle of the picture; y goes down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SCALE = 4  # drawn larger, then shrunk: smooth edges
GREEN, STEM, TABLE = (86, 140, 60), (106, 76, 46), (226, 218, 204)
ROUND = np.exp(1j * np.linspace(0, 2 * np.pi, 60))


def draw(name: str, rng: np.random.Generator, *, size: int = 96) -> Image:
    """Return a `size` x `size` RGB drawing of one of the twelve `SCENTS`; place, size, colours, light are random."""
    from PIL import Image, ImageDraw, ImageFilter

    large = size * SCALE
    ground = _near(TABLE, rng, 26)
    picture = Image.new("RGB", (large, large), ground)
    thing = Image.new("RGBA", (large, large), (*ground, 0))
    DRAWINGS[name](Pen(ImageDraw.Draw(thing), rng, large))
    thing = thing.rotate(rng.uniform(-18, 18), center=(large / 2, large / 2))
    shadow = thing.getchannel("A").filter(ImageFilter.GaussianBlur(large / 40)).point(lambda value: value * 0.35)
    right, down = (rng.uniform(0.01, 0.04, 2) * large).astype(int).tolist()
    picture.paste((60, 50, 40), (right, down), shadow)
    picture.paste(thing, (0, 0), thing)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    slope = np.linspace(-1, 1, size) * rng.uniform(-18, 18)
    grain = rng.normal(0, 2.5, (size, size, 1))
    lit = np.asarray(picture, dtype=np.float64) + slope[:, None, None] + rng.uniform(-12, 12) + grain
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


class Pen:
    """Draws around the picture's middle, moved and scaled once at random."""

    def __init__(self, canvas: ImageDraw, rng: np.random.Generator, pixels: int):
        self.canvas, self.rng, self.pixels = canvas, rng, pixels
        self.middle = complex(*(0.5 + rng.uniform(-0.07, 0.07, 2)))
        self.zoom = rng.uniform(0.72, 0.95)

    def colour(self, red: int, green: int, blue: int) -> tuple[int, int, int]:
        """Return a colour near to this one."""
        return _near((red, green, blue), self.rng, 16)

    def shape(self, points, colour) -> None:
        """Fill the outline `points`."""
        self.canvas.polygon(self._pixels(points), fill=colour)

    def oval(self, at, wide, high, colour, *, turn: float = 0.0) -> None:
        """Fill an ellipse with these half axes, turned by `turn` radians."""
        self.shape(at + (wide * ROUND.real + 1j * high * ROUND.imag) * np.exp(1j * turn), colour)

    def line(self, points, colour, *, width: float = 0.015) -> None:
        """Draw a line through `points`."""
        thick = max(1, round(width * self.zoom * self.pixels))
        self.canvas.line(self._pixels(points), fill=colour, width=thick, joint="curve")

    def _pixels(self, points) -> list[tuple]:
        places = (self.middle + self.zoom * np.asarray(points)) * self.pixels
        return list(zip(places.real.tolist(), places.imag.tolist(), strict=True))

    def leaf(self, at, length, turn) -> None:
        """A pointed green leaf."""
        along = np.linspace(0, 1, 20)
        edge = along + 0.22j * np.sin(np.pi * along)
        self.shape(at + length * np.concatenate([edge, edge[::-1].conj()]) * np.exp(1j * turn), self.colour(*GREEN))

    def places(self, least: int, most: int, reach: float) -> Any:
        """Return places around the middle, spread over a spiral so that they overlap little."""
        count = int(self.rng.integers(least, most)) if most > least else least
        step = np.arange(count) + 0.5
        spiral = reach * np.sqrt(step / count) * np.exp(1j * (step * 2.4 + self.rng.uniform(0, 2 * np.pi)))
        return spiral + self.rng.normal(0, 0.015, (count, 2)) @ (1, 1j)


def _near(colour: tuple[int, int, int], rng: np.random.Generator, spread: int) -> tuple[int, int, int]:
    return tuple(int(np.clip(value + rng.uniform(-spread, spread), 0, 255)) for value in colour)  # type: ignore


def _peach(pen: Pen) -> None:
    pen.oval(0.03j, 0.38, 0.36, pen.colour(246, 176, 120))
    pen.oval(0.13 + 0.05j, 0.22, 0.28, pen.colour(232, 120, 100))
    curve = np.linspace(-0.33, 0.3, 20)
    pen.line(-0.06 + 0.1 * np.cos(4 * curve) + 1j * curve, pen.colour(196, 96, 80), width=0.02)
    pen.leaf(-0.32j, 0.3, pen.rng.uniform(-0.7, 0.0))


def _apple(pen: Pen) -> None:
    red = pen.colour(*((196, 40, 44) if pen.rng.random() < 0.7 else (150, 180, 60)))
    pen.oval(-0.14 + 0.06j, 0.25, 0.33, red)
    pen.oval(0.14 + 0.06j, 0.25, 0.33, red)
    pen.oval(-0.2 - 0.06j, 0.06, 0.1, (244, 214, 200), turn=0.4)
    pen.line([-0.2j, 0.04 - 0.42j], STEM, width=0.03)
    pen.leaf(0.03 - 0.34j, 0.24, -0.5)


def _banana(pen: Pen) -> None:
    yellow = pen.colour(244, 212, 70)
    half = 0.09 * np.sin(np.linspace(0.12, np.pi - 0.12, 40)) ** 0.6
    arc = np.exp(1j * np.linspace(0.15 * np.pi, 0.85 * np.pi, 40))
    for shift in (0.1, 0.0)[: 1 + int(pen.rng.random() < 0.6)]:
        up = 1j * (0.35 + shift)
        pen.shape(np.concatenate([(0.5 + half) * arc, ((0.5 - half) * arc)[::-1]]) - up,
                  tuple(int(c * (1 - shift)) for c in yellow))  # fmt: skip
        pen.line(0.5 * arc - up, (206, 168, 40), width=0.012)
    pen.oval(0.44 - 0.12j, 0.035, 0.035, (90, 70, 30))
    pen.oval(-0.44 - 0.12j, 0.03, 0.03, (90, 70, 30))


def _mandarin_orange(pen: Pen) -> None:
    pen.oval(0.02j, 0.39, 0.35, pen.colour(242, 136, 26))
    for at in pen.places(40, 40, 0.3):
        pen.oval(at + 0.02j, 0.008, 0.008, (222, 112, 12))
    pen.oval(-0.13 - 0.12j, 0.09, 0.05, (252, 190, 110), turn=-0.5)
    for turn in np.linspace(0, 2 * np.pi, 6)[:-1]:
        pen.line([-0.25j, 0.06 * np.cos(turn) + 1j * (-0.25 + 0.05 * np.sin(turn))], GREEN, width=0.03)


def _pear(pen: Pen) -> None:
    skin = pen.colour(186, 196, 76)
    pen.oval(0.15j, 0.27, 0.28, skin)
    pen.oval(-0.12j, 0.15, 0.2, skin)
    pen.shape([-0.15 - 0.14j, 0.15 - 0.14j, 0.26 + 0.1j, -0.26 + 0.1j], skin)
    pen.oval(0.1 + 0.16j, 0.1, 0.14, pen.colour(206, 180, 80))
    pen.line([-0.28j, 0.03 - 0.44j], STEM, width=0.03)


def _strawberry(pen: Pen) -> None:
    angle = np.linspace(0, 2 * np.pi, 80)
    wide = 0.34 * np.sin(angle) * (1 + 0.25 * np.cos(angle))
    pen.shape(wide + 1j * (0.08 - 0.361 * np.cos(angle)), pen.colour(212, 30, 50))
    for at in pen.places(26, 26, 0.26):
        pen.oval(0.85 * at.real + 1j * (at.imag + 0.04), 0.012, 0.02, (246, 214, 110))
    for turn in np.linspace(-2.8, -0.35, 6):
        pen.leaf(-0.26j, 0.2, turn)
        pen.leaf(-0.28j, 0.22, -turn * 0.3 + 0.2)


def _mango(pen: Pen) -> None:
    pen.oval(0, 0.42, 0.28, pen.colour(240, 160, 50), turn=0.5)
    pen.oval(0.08 + 0.1j, 0.27, 0.17, pen.colour(246, 196, 74), turn=0.5)
    pen.oval(-0.19 - 0.13j, 0.16, 0.13, pen.colour(206, 74, 50), turn=0.5)
    pen.oval(0.24 + 0.02j, 0.12, 0.05, pen.colour(130, 160, 70), turn=0.9)
    pen.line([-0.34 - 0.22j, -0.4 - 0.3j], STEM, width=0.03)


def _almond(pen: Pen) -> None:
    round_ = np.exp(1j * np.linspace(0, 2 * np.pi, 50))
    for at in pen.places(3, 6, 0.3):
        turn, long = np.exp(1j * pen.rng.uniform(0, np.pi)), pen.rng.uniform(0.19, 0.24)
        narrow = round_.real + 0.55j * round_.imag * (1 - 0.35 * round_.real)
        pen.shape(at + long * narrow * turn, pen.colour(176, 112, 62))
        for side in (-0.04, 0.0, 0.04):
            pen.line(at + (long * np.array([-0.7, 0.75]) + 1j * side) * turn, (140, 84, 44), width=0.01)


def _cloves(pen: Pen) -> None:
    for at in pen.places(5, 9, 0.34):
        turn, brown = np.exp(1j * pen.rng.uniform(0, 2 * np.pi)), pen.colour(84, 50, 34)
        pen.line([at, at + 0.2 * turn], brown, width=0.04)
        for spread in (-0.8, 0.8):
            pen.line([at, at - 0.06 * turn * np.exp(1j * spread)], brown, width=0.03)
        pen.oval(at - 0.03 * turn, 0.04, 0.04, pen.colour(122, 78, 50))


def _coriander(pen: Pen) -> None:
    for at in pen.places(9, 15, 0.36):
        radius, turn = pen.rng.uniform(0.065, 0.085), np.exp(1j * pen.rng.uniform(0, np.pi))
        pen.oval(at, radius, radius, pen.colour(200, 164, 100))
        arc = np.linspace(-0.9, 0.9, 9)
        for bend in (-0.6, -0.2, 0.2, 0.6):
            pen.line(at + radius * (arc + 1j * bend * np.sqrt(1 - arc**2)) * turn, (156, 118, 62), width=0.009)


def _cumin(pen: Pen) -> None:
    for at in pen.places(16, 26, 0.4):
        turn, brown = pen.rng.uniform(0, np.pi), pen.colour(150, 116, 64)
        pen.oval(at, 0.095, 0.022, brown, turn=turn)
        pen.line(at + np.array([-0.085, 0.085]) * np.exp(1j * turn), (196, 166, 104), width=0.009)


def _garlic(pen: Pen) -> None:
    white = pen.colour(240, 234, 224)
    pen.oval(0.12j, 0.34, 0.27, white)
    neck = np.array([0.2 - 0.06j, 0.05 - 0.26j, 0.04 - 0.44j])
    pen.shape([*-neck.conj(), *neck[::-1]], white)
    down = np.linspace(0, 1, 15)
    for bend in (-0.24, -0.12, 0.0, 0.12, 0.24):
        rib = bend * np.sin(np.pi * (0.15 + 0.75 * down)) + 1j * (-0.3 + 0.66 * down)
        pen.line(rib, pen.colour(200, 176, 186), width=0.012)
    pen.oval(0.36j, 0.1, 0.03, (190, 170, 140))


_FRUITS = (_peach, _apple, _banana, _mandarin_orange, _pear, _strawberry, _mango)
_SPICES = (_almond, _cloves, _coriander, _cumin, _garlic)
DRAWINGS = {function.__name__[1:]: function for function in (*_FRUITS, *_SPICES)}  # by the name of the scent
