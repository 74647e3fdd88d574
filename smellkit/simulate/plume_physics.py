"""What two gas cameras see at a vessel's outlet: emission, puffs in a decaying side jet, radiometry, camera.

emission of a pH -> puffs (mass, place, size) -> optical depth a CL -> (1 - exp(-a CL)) (T_gas - T_background) -> counts

Lengths are in heights of the frame, temperatures in kelvin, times in seconds. Everything that makes the scene is drawn
before anything depends on the number of pixels, so a seed is the same scene at every resolution; all that is smooth is
a Gaussian or a sigmoid in closed form, so the optics' blur is only a wider one, and a frame is a product of matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smellkit.plume import BACKGROUND, GAS, GASES, TUBE

Array = NDArray[np.float64]
PUFFS = 90  # alive at a time
STEP = 0.045  # seconds between puffs
STRIDE = 5  # puffs between frames: 4.4 frames a second
WAVES = 14  # of the stream function of the eddies
VESSEL, OWN, JITTER = 0.45, 0.15, 0.08  # deviations: ln Q shared by the gases, ln Q of each gas, pH
VISIBLE = 1.2  # contrast in units of hypot(NETD, clutter) from which a pixel belongs to the plume
CENTRE_COLUMNS, CENTRE_ROWS = 48, 36  # of the lattice of a coarse random field
FINE = 3  # times as many in the lattice of the clutter

# What is drawn evenly between two ends for each video: low and high of the task, then of WIDE, which covers what other
# simulators, or other barns, may do differently, so that what is trained on it does not learn one camera by heart.
RANGES: dict[str, tuple[float, float, float, float]] = {
    "tube_width": (0.06, 0.11, 0.025, 0.17),
    "tube_length": (0.16, 0.30, 0.05, 0.45),  # share of the frame's width (or height) that the tube reaches into it
    "tube_place": (0.32, 0.68, 0.15, 0.85),  # along the edge that it comes from
    "tube_angle": (-12, 12, -40, 40),  # degrees
    "tube_kelvin": (0.7, 1.6, -1.2, 2.6),
    "roundness": (0.3, 0.8, 0, 1),  # how much darker the tube's rims are
    "upright": (-1, -1, -1, 0.55),  # above 0 the tube comes from above or below instead of a side
    "speed": (0.35, 0.60, 0.2, 0.9),  # heights a second at the nozzle
    "reach": (0.35, 0.75, 0.25, 1.2),  # heights over which the jet decays
    "drift": (0.02, 0.08, 0, 0.15),  # what remains of the speed
    "wind": (-0.02, 0.02, -0.08, 0.08),
    "spread": (0.075, 0.125, 0.05, 0.22),  # growth of a puff's radius a height
    "buoyancy": (0.015, 0.05, 0, 0.09),  # heights / s^2: CH4 up, CO2 down
    "eddies": (0.03, 0.06, 0.005, 0.08),  # heights
    "meander": (4, 11, 2, 18),  # degrees
    "shared_pulse": (0.2, 0.4, 0.2, 0.4),  # deviations of ln Q(t)
    "own_pulse": (0.1, 0.2, 0.1, 0.2),
    "clumps": (0.25, 0.5, 0.25, 0.5),  # deviation of ln mass from puff to puff
    "own_depth": (0, 0, 0, 0.7),  # deviation of ln optical depth of each gas in each video: line of sight, humidity
    "depth": (0.0034, 0.0034, 0.001, 0.010),  # absorption: optical depth of a unit of emission
    "gas_kelvin": (4.5, 5.5, 2, 8),  # the gas above the wall behind it
    "inverted": (-1, -1, -1, 0.33),  # above 0 the gas is colder than the wall
    "slope": (0.1, 0.8, 0, 1.5),  # of the wall from one side to the other
    "patches": (0.06, 0.18, 0, 0.35),
    "clutter": (0.015, 0.035, 0.004, 0.08),
    "patch_size": (0.15, 0.4, 0.06, 0.6),
    "clutter_size": (0.012, 0.03, 0.006, 0.06),
    "panels": (0, 1.99, 0, 4.99),  # rectangles of another temperature
    "panel_kelvin": (-0.15, 0.25, -0.6, 0.6),
    "psf": (0.004, 0.008, 0.001, 0.018),
    "netd": (0.015, 0.030, 0.008, 0.06),
    "stripes": (0.2, 0.5, 0, 1.2),  # row and column noise in units of the NETD
    "vignette": (0.0, 0.25, -0.2, 0.8),  # kelvin in the corners
    "dead": (0.0, 0.0006, 0, 0.003),
    "kelvins": (4.0, 4.0, 1.5, 10),  # from black to white
    "level": (0.32, 0.42, 0.15, 0.7),  # grey of the wall
    "gamma": (1, 1, 0.7, 1.4),
    "stretch": (-1, -1, -1, 1),  # above 0 a camera sets its range from each frame
}
# What only WIDE has, drawn from a generator of its own, so that the task's scenes stay as they are.
TEXTURE = (0.0, 0.9)  # deviation of ln depth from place to place, at three scales
BODIES, BODY_KELVIN = 5, (-0.5, 0.6)  # at most; warm and cold bodies of the plume's size
CLOUD = (0.0, 0.25)  # kelvin of a wall's structure at three scales
FLAT = (-0.6, 0.6)  # above 0: how far a camera flattens its histogram
NEGATIVE = (-1.0, 0.09)  # above 0 a camera's polarity is reversed
SCALES = (0.03, 0.08, 0.22)  # heights
STANDARD, WIDE = ({name: row[at : at + 2] for name, row in RANGES.items()} for at in (0, 2))


def emission(ph: Array | float, *, random: np.random.Generator | None = None) -> Array:
    """ln Q of CO2 and CH4 (..., 2) at a pH; with `random`, of vessels: shared by both gases, own, and pH jitter."""
    above = np.asarray(ph, float) - 5.9
    varied = np.zeros((*above.shape, 2))
    if random is not None:
        above = above + JITTER * random.standard_normal(above.shape)
        varied += VESSEL * random.standard_normal((*above.shape, 1))
        varied += OWN * random.standard_normal(varied.shape)
    methane = 1 / (1 + np.exp(-above / 0.12)) - 0.5
    return np.stack([-0.5 * above, methane], axis=-1) + varied


@dataclass(frozen=True)
class Scene:
    """One video before any pixel: what was drawn for it; what has a default is in scenes of WIDE alone."""

    chosen: dict[str, float]  # of STANDARD or WIDE
    camera: tuple[dict[str, float], dict[str, float]]  # the same names, drawn again for each gas
    log_emission: Array  # (2,) ln Q
    depth: Array  # (2,) optical depth of a unit of emission
    kelvin: float  # of the gas above the wall
    edge: str  # left, right, top or bottom: where the tube comes from
    masses: Array  # (2, puffs emitted) in time order
    angles: Array  # (puffs emitted,) radians around the tube's direction
    jitter: Array  # (puffs emitted, 2) sideways, in radii of the puff
    waves: Array  # (5, waves) of the stream function: kx, ky, phase, frequency, amplitude
    patches: Array
    clutter: Array
    panels: Array  # (panels, 5): centre, half sizes, kelvin
    shift: Array  # (2, 2) where each camera points, in heights
    frames: int
    texture: float = 0.0
    cloud: float = 0.0
    fields: Array | None = None  # (2, scales, rows, columns): lattices of texture and cloud
    bodies: Array | tuple = ()  # (bodies, 6): centre, two sizes, turn, kelvin
    flat: Array | tuple = (0, 0)  # of each camera
    negative: Array | tuple = (0, 0)


class Video(NamedTuple):
    """Frames (frames, gases, rows, columns) of 8 bits, their masks, and the true contrast summed over each plume."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    contrast: Array  # (frames, gases): kelvin x heights^2


def scene(ph: float, *, frames: int, random: np.random.Generator, wide: bool = False) -> Scene:
    """Draw everything about a video of a vessel at `ph` but the noise of its pixels."""
    ranges = WIDE if wide else STANDARD
    low, high = np.array(list(ranges.values())).T
    one, *both = (dict(zip(ranges, row, strict=True)) for row in random.uniform(low, high, (3, len(low))).tolist())
    emitted = PUFFS + STRIDE * (frames - 1)
    log_emission = emission(ph, random=random)
    shared, *own = _walk(random.standard_normal((3, emitted)), seconds=0.4)
    pulse = one["shared_pulse"] * shared + one["own_pulse"] * np.array(own)
    clumps = one["clumps"] * random.standard_normal((2, emitted))
    length = 1 / random.uniform(1.2, 8.0, WAVES)  # heights
    turn = random.uniform(0, 2 * np.pi, (3, WAVES))
    strength = length ** (4 / 3)
    along, across = 2 * np.pi / length * np.array([np.cos(turn[0]), np.sin(turn[0])])
    frequency, amplitude = random.normal(0, 1.5, WAVES), strength / np.sqrt((strength**2).sum())
    panels = random.uniform([0, 0, 0.04, 0.04, 0], [1.4, 1, 0.4, 0.4, 1], (5, 5))[: int(one["panels"])]
    panels[:, 4] = np.interp(panels[:, 4], [0, 1], ranges["panel_kelvin"])
    return Scene(
        **(_extra(random.spawn(1)[0]) if wide else {}),
        chosen=one,
        camera=(both[0], both[1]),
        log_emission=log_emission,
        depth=one["depth"] * np.exp(one["own_depth"] * random.standard_normal(2)),
        kelvin=one["gas_kelvin"] * (-1 if one["inverted"] > 0 else 1),
        edge=(("top", "bottom") if one["upright"] > 0 else ("left", "right"))[int(random.integers(2))],
        masses=np.exp(pulse + clumps - clumps.var() / 2),
        angles=np.radians(one["meander"]) * _walk(random.standard_normal(emitted), seconds=2.0),
        jitter=0.6 * random.standard_normal((emitted, 2)),
        waves=np.array([along, across, turn[1], frequency, amplitude]),
        patches=random.standard_normal((CENTRE_ROWS, CENTRE_COLUMNS)),
        clutter=random.standard_normal((FINE * CENTRE_ROWS, FINE * CENTRE_COLUMNS)),
        panels=panels,
        shift=0.01 * random.standard_normal((2, 2)),
        frames=frames,
    )


def _extra(random: np.random.Generator) -> dict[str, Any]:
    """What WIDE adds to a scene."""
    bodies = random.uniform([0, 0, 0.04, 0.04, 0, 0], [1.4, 1, 0.3, 0.3, np.pi, 1], (BODIES, 6))
    bodies = bodies[: random.integers(BODIES + 1)]
    bodies[:, 5] = np.interp(bodies[:, 5], [0, 1], BODY_KELVIN)
    extra = {"bodies": bodies, "texture": random.uniform(*TEXTURE), "cloud": random.uniform(*CLOUD)}
    extra["fields"] = random.standard_normal((2, len(SCALES), FINE * CENTRE_ROWS, FINE * CENTRE_COLUMNS))
    return extra | {"flat": random.uniform(*FLAT, 2), "negative": random.uniform(*NEGATIVE, 2)}


def render(scene: Scene, *, size: tuple[int, int], random: np.random.Generator, gases: Sequence[str] = GASES) -> Video:
    """What both cameras make of a scene at `size` (width, height); `random` is the noise of the pixels alone.

    Only `gases` are rendered; frames and masks of the other one are 0.
    """
    width, height = size
    aspect = width / height
    x, y = (np.arange(width) + 0.5) / height, (np.arange(height) + 0.5) / height
    depth = _optical_depth(scene, x, y, aspect=aspect)
    if scene.texture:
        depth *= _texture(scene, x, y)
    frames, masks = np.zeros((2, *depth.shape), np.uint8)
    contrast = np.zeros(depth.shape[:2])
    for gas in map(GASES.index, gases):
        camera, seen_from = scene.camera[gas], (x + scene.shift[gas, 0], y + scene.shift[gas, 1])
        wall = _wall(scene, camera, *seen_from, aspect=aspect)
        tube, profile = _tube(scene, camera, *seen_from, aspect=aspect)
        behind = ((scene.kelvin - wall) * (1 - tube)).astype(np.float32)
        seen = -np.expm1(-depth[:, gas]) * behind
        unseen = scene.chosen["clutter"] ** 2 + (0.25 * scene.cloud) ** 2
        threshold = VISIBLE * np.sqrt(camera["netd"] ** 2 + unseen)
        masks[:, gas] = np.where(tube > 0.5, TUBE, np.where(np.abs(seen) > threshold, GAS, BACKGROUND))
        contrast[:, gas] = np.abs(seen).sum(axis=(1, 2)) / height**2
        still = wall * (1 - tube) + scene.chosen["tube_kelvin"] * profile * tube
        counts = _counts(seen + still.astype(np.float32), camera, random=random)
        frames[:, gas] = _processed(counts, scene.flat[gas], scene.negative[gas] > 0)
    return Video(frames, masks, contrast)


def _walk(noise: Array, *, seconds: float) -> Array:
    """Ornstein-Uhlenbeck walks of unit deviation along the last axis, a step every `STEP` seconds."""
    from scipy.signal import lfilter

    keep = np.exp(-STEP / seconds)
    driven = noise * np.sqrt(1 - keep**2)
    driven[..., 0] = noise[..., 0]  # stationary from the start
    return lfilter([1], [1, -keep], driven, axis=-1)


def _nozzle(scene: Scene, aspect: float) -> tuple[Array, float]:
    """Where the tube ends, (x, y), and the direction in which it points (radians; y grows downwards)."""
    one = scene.chosen
    along, angle = one["tube_place"], np.radians(one["tube_angle"])
    reach = one["tube_length"] * (aspect if scene.edge in ("left", "right") else 1)
    place, direction = {
        "left": ((reach, along), angle),
        "right": ((aspect - reach, along), np.pi - angle),
        "top": ((along * aspect, reach), np.pi / 2 + angle),
        "bottom": ((along * aspect, 1 - reach), -np.pi / 2 - angle),
    }[scene.edge]
    return np.array(place), float(direction)


def _optical_depth(scene: Scene, x: Array, y: Array, *, aspect: float) -> NDArray[np.float32]:
    """Optical depth of each gas, (frames, gases, rows, columns): the sum of all puffs."""
    one = scene.chosen
    nozzle, direction = _nozzle(scene, aspect)
    age = STEP * (np.arange(PUFFS)[::-1] + 0.5)  # the newest puff is the last
    emitted = STRIDE * np.arange(scene.frames)[:, None] + np.arange(PUFFS)  # (frames, puffs)
    run = one["reach"] * np.log1p(one["speed"] * age / one["reach"]) + one["drift"] * age
    heading = direction + scene.angles[emitted]
    place = nozzle + run[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    place[..., 0] += one["wind"] * age
    radius = 0.3 * one["tube_width"] + one["spread"] * run
    place = place + radius[:, None] * scene.jitter[emitted]
    kx, ky, phase, frequency, amplitude = scene.waves
    time = STEP * STRIDE * np.arange(scene.frames)[:, None, None]
    turn = place[..., :1] * kx + place[..., 1:] * ky + phase + frequency * time
    curl = np.stack([np.cos(turn) @ (amplitude * ky), -np.cos(turn) @ (amplitude * kx)], axis=-1)
    curl /= np.sqrt((amplitude**2 * (kx**2 + ky**2)).sum() / 2)
    place = place + one["eddies"] * (1 - np.exp(-age / 0.8))[:, None] * curl
    places = np.repeat(place[:, None], 2, axis=1)
    fall = 0.5 * one["buoyancy"] * age**2 / (1 + age / 2)
    places[..., 1] += fall * np.array([1.0, -1.0])[:, None]  # CO2 sinks, CH4 rises
    places -= scene.shift[:, None]
    masses = np.exp(scene.log_emission)[:, None, None] * scene.depth[:, None, None] * scene.masses[:, emitted]
    blur = np.array([camera["psf"] for camera in scene.camera])
    sigma = np.hypot(radius, blur[:, None])  # (gases, puffs)
    weight = masses.swapaxes(0, 1) * STEP / (2 * np.pi * sigma**2)
    columns = _bell((x - places[..., 0, None]) / sigma[..., None])
    rows = _bell((y - places[..., 1, None]) / sigma[..., None])
    return np.matmul((rows * weight[..., None]).swapaxes(-1, -2), columns, dtype=np.float32)


def _bell(z: Array) -> Array:
    return np.exp(-0.5 * z**2)


def _step(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(z))


def _wall(scene: Scene, camera: dict[str, float], x: Array, y: Array, *, aspect: float) -> Array:
    """Temperature of what lies behind the gas, (rows, columns): a slope, soft patches, clutter, panels."""
    one = scene.chosen
    patches = one["patches"] * _field(scene.patches, x, y, size=one["patch_size"], blur=camera["psf"])
    clutter = one["clutter"] * _field(scene.clutter, x, y, size=one["clutter_size"], blur=camera["psf"])
    wall = one["slope"] * (x / aspect - 0.5) * (1 if scene.waves[2, 0] > np.pi else -1) + patches + clutter
    soft = 0.5 * camera["psf"] + 1e-4
    for left, top, half_width, half_height, kelvin in scene.panels:
        across = _step((half_width - np.abs(x - left)) / soft)
        down = _step((half_height - np.abs(y - top)) / soft)
        wall += kelvin * down[:, None] * across
    if scene.fields is not None:
        wall += scene.cloud * _scales(scene.fields[1], x, y, blur=camera["psf"])
    for left, top, wide, high, turn, kelvin in scene.bodies:
        right, below = turned(x - left, (y - top)[:, None], turn)
        wall += kelvin * _bell((right / wide) ** 2 + (below / high) ** 2)
    return wall


def turned(right: Array, down: Array, turn: float) -> tuple[Array, Array]:
    """Coordinates along a direction of `turn` radians, and across it."""
    return right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)


def _scales(lattices: Array, x: Array, y: Array, *, blur: float) -> Array:
    fields = zip(lattices, SCALES, strict=True)
    return sum(_field(one, x, y, size=size, blur=blur) * size**0.5 for one, size in fields) / sum(SCALES) ** 0.5


def _texture(scene: Scene, x: Array, y: Array) -> NDArray[np.float32]:
    """Factors of the depth (frames, gases, rows, columns), around 1: eddies that the puffs are too smooth for."""
    assert scene.fields is not None  # where there is a texture
    drift, lattices = 0.04 * np.arange(scene.frames) % 0.4, scene.fields[0]
    move = np.minimum(drift, 0.4 - drift)  # forth and back: beyond the lattice there is nothing
    fields = [[_scales(lattices, x - step, y - gas, blur=0.004) for gas in (0.0, 0.02)] for step in move]
    return np.exp(scene.texture * np.array(fields) - scene.texture**2 / 2).astype(np.float32)


def _field(lattice: Array, x: Array, y: Array, *, size: float, blur: float) -> Array:
    """A smooth random field of unit deviation and correlation length `size`, blurred, the same at every resolution."""
    places = [np.linspace(-0.2, end, count) for count, end in zip(lattice.shape, (1.2, 1.8), strict=True)]
    kernels = []
    for pixels, centres in ((y, places[0]), (x, places[1])):
        step = centres[1] - centres[0]
        width = max(size / np.sqrt(2), 0.6 * step)
        sharp = _bell((pixels[:, None] - centres) / width)
        scale = np.sqrt((sharp**2).sum(axis=1, keepdims=True))
        wide = np.hypot(width, blur)
        kernels.append(_bell((pixels[:, None] - centres) / wide) * (width / wide) / scale)
    return kernels[0] @ lattice @ kernels[1].T


def _tube(scene: Scene, camera: dict[str, float], x: Array, y: Array, *, aspect: float) -> tuple[Array, Array]:
    """How much of each pixel the tube covers (0 to 1), and the tube's temperature across it, both (rows, columns)."""
    nozzle, direction = _nozzle(scene, aspect)
    along, across = turned(x - nozzle[0], (y - nozzle[1])[:, None], direction)
    half = scene.chosen["tube_width"] / 2
    soft = 0.5 * camera["psf"] + 1e-4
    cover = _step(-along / soft) * _step((half - np.abs(across)) / soft)
    profile = 1 - scene.chosen["roundness"] * np.clip(across / half, -1, 1) ** 2
    return cover, profile


def _counts(kelvin: NDArray[np.float32], camera: dict[str, float], *, random: np.random.Generator) -> NDArray[np.uint8]:
    """8-bit frames of temperatures (frames, rows, columns): vignetting, noise, range, dead pixels."""
    frames, rows, columns = kelvin.shape
    down, right = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    noise = random.standard_normal(kelvin.shape, dtype=np.float32)
    stripes = [random.standard_normal(shape, dtype=np.float32) for shape in ((frames, rows, 1), (frames, 1, columns))]
    stuck = random.random((rows, columns), dtype=np.float32)
    seen = kelvin - (camera["vignette"] * (down**2 + right**2) / 2).astype(np.float32)
    seen += camera["netd"] * (noise + camera["stripes"] * (stripes[0] + stripes[1]))
    if camera["stretch"] > 0:
        low, high = np.percentile(seen, [1, 99], axis=(1, 2), keepdims=True)
        share = (seen - low) / np.maximum(high - low, 0.2)
    else:
        share = seen / camera["kelvins"] + camera["level"]
    counts = np.round(255 * np.clip(share, 0, 1) ** camera["gamma"]).astype(np.uint8)
    counts[:, stuck < camera["dead"] / 2] = 0
    counts[:, stuck > 1 - camera["dead"] / 2] = 255
    return counts


def _processed(frames: NDArray[np.uint8], flat: float, negative: bool) -> NDArray[np.uint8]:
    """Frames of a camera that flattens its histogram by a share (that of the first frame), or shows negatives."""
    levels = np.arange(256.0)
    if flat > 0:
        even = np.cumsum(np.bincount(frames[0].ravel(), minlength=256)) * 255 / frames[0].size
        levels = (1 - flat) * levels + flat * even
    return np.round(255 - levels if negative else levels).astype(np.uint8)[frames]
