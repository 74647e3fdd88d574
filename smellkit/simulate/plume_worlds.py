"""Other simulators of two gas cameras, built otherwise on purpose: what learned from `plume_physics` is tried on them.

    cone       a bent Gaussian cone with log-normal texture, walls of 1/f noise, cameras that stretch every frame
    particles  drifting particles, walls of bars and warm bodies, cameras that flatten their histogram
    advected   a scalar carried through vortices on a grid, a cloudy wall, fixed ranges, dark corners, dead clusters
    mixed      for training: any plume, wall and camera of cone, particles and a third kind with no physics in it

Only the emission of a pH and the meaning of a mask (contrast above that of noise and clutter) are shared with the
task's own simulator. Nothing is trained on advected. A video is drawn once for all; its frames are 0.25 s apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from smellkit.plume import BACKGROUND, GAS, TUBE
from smellkit.simulate.plume_physics import Array, Video, emission, turned

REVERSED = 0.08  # share of frames with reversed polarity
Random = np.random.Generator
Size = tuple[int, int]  # rows, columns


class Outlet(NamedTuple):
    """A tube that enters at a side: its end (x, y) in heights, its direction in radians, its width."""

    end: Array
    direction: float
    width: float

    def along(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Coordinates along the direction from the end on, and across it."""
        return turned(x - self.end[0], y - self.end[1], self.direction)


def film(
    world: str, ph: float, *, frames: int, size: Size, random: Random, gases: tuple[int, ...] = (0, 1)
) -> tuple[Array, Video]:
    """Return ln Q (2,) and the video of one vessel at `ph` in a world of WORLDS; `size` is rows, columns.

    Gases that are not among `gases` (0 CO2, 1 CH4) are blank.
    """
    plume, scenery, camera = _drawn(random) if world == "mixed" else WORLDS[world]
    y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / size[0]
    log_emission, outlet = emission(ph, random=random), _outlet(x.max(), random)
    depth = plume(outlet, x, y, frames, random) * np.exp(log_emission)[:, None, None]
    depth *= np.exp(random.uniform(-3.2, -2.0))
    wall, clutter = scenery(x, y, random)
    tube, warmth = _tube(outlet, x, y), random.uniform(-0.8, 2.0)
    gas_kelvin, netd = random.uniform(3, 7), random.uniform(0.012, 0.04)
    taken, masks = np.zeros((frames, 2, *size), np.uint8), np.zeros((frames, 2, *size), np.uint8)
    contrast = np.zeros((frames, 2))
    for gas in gases:
        noise = netd * random.uniform(0.8, 1.25)
        seen = (1 - np.exp(-depth[:, gas])) * (gas_kelvin - wall) * (tube < 0.5)
        masks[:, gas] = np.where(np.abs(seen) > 1.2 * np.hypot(noise, clutter), GAS, BACKGROUND)
        masks[:, gas][:, tube > 0.5] = TUBE
        contrast[:, gas] = np.abs(seen).sum(axis=(1, 2)) / size[0] ** 2
        kelvin = seen + wall * (1 - tube) + warmth * tube
        grey = np.clip(camera(kelvin, noise, random), 0, 1)
        reverse = random.random((frames, 1, 1)) < REVERSED
        taken[:, gas] = np.round(255 * np.where(reverse, 1 - grey, grey))
    return log_emission, Video(taken, masks, contrast)


def _drawn(random: Random) -> tuple[Plume, Scenery, Camera]:
    """The parts of a `mixed` video, one of each kind."""
    plume, scenery, camera = (int(random.integers(len(parts))) for parts in MIXED)
    return MIXED[0][plume], MIXED[1][scenery], MIXED[2][camera]


def _outlet(aspect: float, random: Random) -> Outlet:
    side, reach, place = int(random.integers(4)), random.uniform(0.12, 0.4), random.uniform(0.25, 0.75)
    ends = [(reach, place), (aspect - reach, place), (place * aspect, reach), (place * aspect, 1 - reach)]
    facing = np.array([0, np.pi, np.pi / 2, -np.pi / 2])[side] + random.uniform(-0.5, 0.5)
    return Outlet(np.array(ends[side]), float(facing), random.uniform(0.04, 0.13))


def _tube(outlet: Outlet, x: Array, y: Array) -> Array:
    """How much of each pixel the tube covers: a bar with a round end."""
    along, across = outlet.along(x, y)
    distance = np.hypot(np.maximum(along + outlet.width / 2, 0), across)
    return 0.5 * (1 - np.tanh((distance - outlet.width / 2) * x.shape[0] / 2))


def _cloud(shape: Size, random: Random, *, power: float, largest: float = 1.0) -> Array:
    """A field of unit deviation whose amplitude falls as frequency^-power; none longer than `largest` heights."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None] * shape[0], np.fft.rfftfreq(shape[1]) * shape[0]
    frequency = np.hypot(rows, columns)
    weight = np.where(frequency >= 1 / largest, np.maximum(frequency, 1e-9) ** -power, 0)
    field = np.fft.irfft2(weight * np.fft.rfft2(random.standard_normal(shape)), s=shape)
    return field / field.std()


def _cone(outlet: Outlet, x: Array, y: Array, frames: int, random: Random) -> Array:
    """Depth of both gases for a unit of emission, (frames, 2, rows, columns), about 1 at the outlet, as all plumes."""
    along, across = outlet.along(x, y)
    reach, spread, sway = random.uniform(0.3, 1.0), random.uniform(0.08, 0.25), random.uniform(0.02, 0.12)
    pitch, phase, bend = random.uniform(5, 14), random.uniform(0, 2 * np.pi), random.uniform(0.0, 0.25)
    rough, pulse = random.uniform(0.2, 0.9), 0.3 * random.standard_normal((frames, 2))
    out = np.maximum(along, 0)
    width = 0.4 * outlet.width + spread * out
    depth = np.zeros((frames, 2, *x.shape))
    for frame in range(frames):
        middle = sway * np.sin(pitch * out + phase - 2 * frame) * out / (out + 0.2)
        for gas, rise in enumerate((1, -1)):
            texture = rough * _cloud(x.shape, random, power=1.6, largest=0.3)
            level = pulse[frame, gas] + texture - rough**2 / 2 - out / reach
            place = across - middle - rise * bend * out**2 * np.cos(outlet.direction)
            shape = np.exp(level - 0.5 * (place / width) ** 2) * 0.4 * outlet.width / width
            depth[frame, gas] = shape * (along > -0.3 * outlet.width)
    return depth


def _particles(outlet: Outlet, x: Array, y: Array, frames: int, random: Random) -> Array:
    count, step = 2500, 0.1
    ages = random.uniform(0, random.uniform(1.5, 4), (2, count))
    speed, drag = random.uniform(0.3, 0.9), random.uniform(0.8, 2.5)
    wave, phase = random.normal(0, 9, (2, 10)), random.uniform(0, 2 * np.pi, (10, 1))
    gust, spread, lift = random.uniform(0.03, 0.12), random.uniform(0.02, 0.07), random.uniform(0, 0.06)
    heading = outlet.direction + random.normal(0, 0.12, ages.shape)
    depth = np.zeros((frames, 2, *x.shape))
    for frame in range(frames):
        for gas, rise in enumerate((1, -1)):
            way = outlet.end[:, None] + outlet.width * random.normal(0, 0.3, (2, count))
            for time in np.arange(0, ages[gas].max(), step):
                moving = ages[gas] > time
                jet = speed * np.exp(-drag * time) * np.array([np.cos(heading[gas]), np.sin(heading[gas])])
                turn = np.cos(wave.T @ way + phase + 2 * (0.25 * frame - time))
                eddy = np.stack([wave[1] @ turn, -wave[0] @ turn]) * gust / 20
                kick = spread * random.standard_normal((2, count)) / np.sqrt(step)
                way = way + step * moving * (jet + eddy + kick + np.array([[0], [rise * lift * time]]))
            cells = [np.arange(n + 1) / x.shape[0] for n in x.shape]
            counted = np.histogram2d(way[1], way[0], cells)[0]
            smooth = ndimage.gaussian_filter(counted, random.uniform(0.01, 0.018) * x.shape[0])
            depth[frame, gas] = smooth / max(np.quantile(smooth[smooth > 0.02 * smooth.max()], 0.98), 1e-9)
    return depth


def _advected(outlet: Outlet, x: Array, y: Array, frames: int, random: Random) -> Array:
    rows, columns = 48, 64
    down, right = (np.mgrid[:rows, :columns] + 0.5) / rows
    along, across = outlet.along(right, down)
    jet = random.uniform(0.4, 0.9) * np.exp(-0.5 * (across / (outlet.width + 0.15 * np.maximum(along, 0))) ** 2)
    jet *= (along > -0.05) * np.exp(-np.maximum(along, 0) / random.uniform(0.4, 1.0))
    source = np.exp(-0.5 * ((along / 0.02) ** 2 + (across / (0.35 * outlet.width)) ** 2))
    swirl, lift = random.uniform(0.008, 0.03), random.uniform(0, 0.12)
    stream = [swirl * _cloud((rows, columns), random, power=1.8, largest=0.5) for _ in range(2)]
    loss, scalar, depth = random.uniform(0.2, 0.8), np.zeros((2, rows, columns)), []
    step = 0.04
    for number in range(50 + 6 * frames):
        turn = np.cos(number * 0.05) * stream[0] + np.sin(number * 0.05) * stream[1]
        dy, dx = np.gradient(turn, 1 / rows)
        pulse = source * np.exp(0.35 * random.standard_normal((2, 1, 1)))
        for gas, rise in enumerate((1, -1)):
            u = jet * np.cos(outlet.direction) + dy
            v = jet * np.sin(outlet.direction) - dx + rise * lift * (scalar[gas] > 0.05)
            came = [np.arange(rows)[:, None] - v * step * rows, np.arange(columns) - u * step * rows]
            scalar[gas] = ndimage.map_coordinates(scalar[gas], came, order=1) * (1 - loss * step)
        scalar += 0.25 * pulse
        if number >= 50 and (number - 50) % 6 == 0:
            at = [y * rows - 0.5, x * rows - 0.5]
            fine = np.stack([ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in scalar])
            depth.append(fine / max(np.quantile(scalar[scalar > 0.05 * scalar.max()], 0.95), 1e-9))
    return np.array(depth)


def _warped(outlet: Outlet, x: Array, y: Array, frames: int, random: Random) -> Array:
    """Anything that thins away from the outlet: a lobe of any shape, bent and torn by random fields."""
    reach, opening, bluntness = random.uniform(0.15, 1.0), random.uniform(0.05, 0.5), random.uniform(1.2, 4)
    tear, rough, drift = random.uniform(0.0, 0.25), random.uniform(0.1, 1.0), random.uniform(-0.3, 0.3, 2)
    power, largest = random.uniform(1.2, 2.4), random.uniform(0.1, 0.6)
    depth = np.zeros((frames, 2, *x.shape))
    for frame in range(frames):
        for gas in range(2):
            right, down = (_cloud(x.shape, random, power=2.2, largest=0.6) for _ in range(2))
            along, across = outlet.along(x, y)
            torn = tear * np.clip(along, 0, 1)
            along, across = along + torn * right, across + torn * down - drift[gas] * np.maximum(along, 0) ** 2
            width = 0.45 * outlet.width + opening * np.maximum(along, 0)
            lobe = np.abs(across / width) ** bluntness + np.maximum(along, 0) / reach
            texture = rough * _cloud(x.shape, random, power=power, largest=largest) + 0.3 * random.standard_normal()
            depth[frame, gas] = np.exp(texture - rough**2 / 2 - lobe) * (along > -0.3 * outlet.width)
    return depth


def _fractal(x: Array, y: Array, random: Random) -> tuple[Array, float]:
    """A wall in kelvin and the deviation of its fine structure, as every scenery gives."""
    clutter = random.uniform(0.01, 0.05)
    wall = random.uniform(0.1, 0.5) * _cloud(x.shape, random, power=2.2)
    return wall + clutter * _cloud(x.shape, random, power=1.0, largest=0.2), clutter


def _stalls(x: Array, y: Array, random: Random) -> tuple[Array, float]:
    clutter = random.uniform(0.008, 0.03)
    wall = random.uniform(-0.6, 0.6) * (y - 0.5) + clutter * _cloud(x.shape, random, power=0.8, largest=0.1)
    for _ in range(int(random.integers(0, 6))):  # bars of a stall
        tilt = random.normal(0, 0.1)
        wall += random.uniform(-0.4, 0.4) * (
            np.abs(x + tilt * y - random.uniform(0, 1.4)) < random.uniform(0.008, 0.03)
        )
    for _ in range(int(random.integers(0, 5))):  # bodies, as large as a plume
        a, b, turn = *random.uniform(0.06, 0.3, 2), random.uniform(0, np.pi)
        u, v = turned(x - random.uniform(0, 1.4), y - random.uniform(0, 1), turn)
        wall += random.uniform(-0.3, 0.4) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2) ** 2)
    return wall, clutter


def _sky(x: Array, y: Array, random: Random) -> tuple[Array, float]:
    clutter = random.uniform(0.01, 0.04)
    cloud = random.uniform(0.1, 0.4) * np.abs(_cloud(x.shape, random, power=1.7))
    ground = random.uniform(-0.6, 0.6) / (1 + np.exp(-(y - random.uniform(0.3, 1.1)) / 0.02))
    return cloud + ground + clutter * random.standard_normal(x.shape), clutter


def _collage(x: Array, y: Array, random: Random) -> tuple[Array, float]:
    """Fields of any scale, slopes, sharp and soft borders, spots."""
    clutter = random.uniform(0.005, 0.05)
    wall = clutter * _cloud(x.shape, random, power=random.uniform(0, 1.2), largest=random.uniform(0.05, 0.3))
    wall += random.uniform(0, 0.5) * _cloud(x.shape, random, power=random.uniform(1.4, 2.6))
    for _ in range(int(random.integers(0, 6))):
        turn, place = random.uniform(0, 2 * np.pi), (random.uniform(0, 1.4), random.uniform(0, 1))
        border = (x - place[0]) * np.cos(turn) + (y - place[1]) * np.sin(turn)
        if random.random() < 0.5:
            border = random.uniform(0.02, 0.3) - np.hypot(border, random.uniform(0.4, 2.5) * (y - place[1]))
        wall += random.uniform(-0.5, 0.5) / (1 + np.exp(-np.clip(border / random.uniform(0.004, 0.2), -30, 30)))
    return wall, clutter


def _stretching(kelvin: Array, noise: float, random: Random) -> Array:
    """Grey from 0 to 1 of temperatures (frames, rows, columns), as every camera gives."""
    seen = ndimage.gaussian_filter(kelvin, (0, *[random.uniform(0.2, 1.2)] * 2))
    columns = random.uniform(0, 1) * random.standard_normal((1, 1, kelvin.shape[2]))
    seen += noise * (random.standard_normal(kelvin.shape) + columns)
    low, high = np.percentile(seen, [random.uniform(0.2, 3), random.uniform(97, 99.9)], axis=(1, 2), keepdims=True)
    return np.clip((seen - low) / np.maximum(high - low, 0.2), 0, 1) ** random.uniform(0.75, 1.3)


def _flattening(kelvin: Array, noise: float, random: Random) -> Array:
    seen = ndimage.uniform_filter1d(kelvin, int(random.integers(1, 4)), axis=2)
    seen += noise * random.standard_normal(kelvin.shape)
    share = (seen - seen.min()) / np.ptp(seen)
    order = np.sort(seen[0].ravel())
    even = np.searchsorted(order, seen) / order.size
    mix = random.uniform(0.1, 0.6)
    grey = 0.1 + 0.8 * (mix * even + (1 - mix) * share)
    spoiled = random.random(kelvin.shape)
    return np.where(spoiled < 0.001, 0, np.where(spoiled > 0.999, 1, grey))


def _fixed(kelvin: Array, noise: float, random: Random) -> Array:
    y, x = (np.linspace(-1, 1, length) for length in kelvin.shape[1:])
    corners = 1 - random.uniform(0, 0.5) * (y[:, None] ** 2 + x**2) / 2
    seen = kelvin + noise * random.standard_normal(kelvin.shape)
    grey = corners * (random.uniform(0.25, 0.6) + seen / random.uniform(2.5, 7))
    dead = ndimage.binary_dilation(random.random(kelvin.shape[1:]) < random.uniform(0, 4e-4), iterations=1)
    grey[:, dead] = random.integers(2)
    return grey


def _any_range(kelvin: Array, noise: float, random: Random) -> Array:
    """Any blur, stripes, corners, range, gamma; some pixels are dead, alone or in spots."""
    seen = ndimage.gaussian_filter(kelvin, (0, *[random.uniform(0, 1.5)] * 2))
    stripes = random.uniform(0, 1.2) * random.standard_normal((1, 1, kelvin.shape[2]))
    rows = random.uniform(0, 0.6) * random.standard_normal((1, kelvin.shape[1], 1))
    seen = seen + noise * (random.standard_normal(kelvin.shape) + stripes + rows)
    y, x = (np.linspace(-1, 1, length) for length in kelvin.shape[1:])
    seen += random.uniform(-1.0, 0.4) * ((y[:, None] - random.uniform(-0.3, 0.3)) ** 2 + x**2) / 2
    low, high = np.percentile(seen, [random.uniform(0, 4), random.uniform(96, 100)])
    span = max(high - low, 0.3) * random.uniform(0.9, 3.0)
    grey = np.clip((seen - low) / span + random.uniform(0, 1) * max(0, 1 - (high - low) / span), 0, 1)
    grey = grey ** random.uniform(0.6, 1.6)
    spots = random.random(kelvin.shape[1:]) < random.uniform(0, 2e-3)
    grey[:, ndimage.binary_dilation(spots, iterations=2) if random.random() < 0.2 else spots] = random.integers(2)
    return grey


Plume = Callable[[Outlet, Array, Array, int, Random], Array]
Scenery = Callable[[Array, Array, Random], tuple[Array, float]]
Camera = Callable[[Array, float, Random], Array]
WORLDS: dict[str, tuple[Plume, Scenery, Camera]] = {
    "cone": (_cone, _fractal, _stretching),
    "particles": (_particles, _stalls, _flattening),
    "advected": (_advected, _sky, _fixed),
}
MIXED: tuple[Sequence[Plume], Sequence[Scenery], Sequence[Camera]] = (  # nothing of advected
    (_cone, _particles, _warped),
    (_fractal, _stalls, _collage),
    (_stretching, _flattening, _any_range),
)
