"""Our own model: fine masks by skips from early layers, and a class from how much gas the masks hold."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.plume import BACKGROUND, GAS, GASES
from smellkit.plume.layers import MASKS, InvertedResidual, PyramidPooling, conv, resize, separable
from smellkit.task import Batch

LEAST = 1e-3  # of the frame: what the logarithm of an amount begins at
FLAT = 0.02  # least deviation of a frame's grey levels (from -1 to 1) that its contrast is stretched by
SCALES = 4  # of a frame, which the amounts are measured against
AMOUNTS = 6  # learned maps whose sum over the plume is an amount of gas
CERTAIN = 20.0  # logit of the background where there is no frame


class PlumeNet(nn.Module):
    """A small U-Net a frame, the same for both gases, which exchange features at its top and at its bottom.

        own, other -- /2 16 -- /4 32 -- /8 64 -- /16 128 -- exchange between gases
                       |        |        |          |
                mask <-+ 16 <---+ 32 <---+ 64 <-----+    (separable convolutions, skips by concatenation)
                       |
        frames of unit deviation; amounts in the mask: area, contrast against the wall, learned ones; what tells the
        gain of a camera; logarithms of all, of both gases
                  --> pH and its uncertainty --> class_logits by two thresholds on the pH

    The other camera sees the same wall behind other amounts of gas, so its frame is the second channel of the input:
    what differs between the two is gas. What decides the class is how much gas there is, which is a sum over the plume,
    not the look of any place in it; and the classes are ordered. `ph` (B,) is counted from the middle class.
    With `one_camera`, whose gain is the same in all frames, grey levels are taken as they are. With `videos` it also
    sees what moves (`co2_motion`, `ch4_motion` (B, 2, H, W) of `video.motion`); a frame of none it answers as without.
    """

    def __init__(self, *, dropout: float = 0.2, one_camera: bool = False, videos: bool = False):
        super().__init__()
        self.one_camera = one_camera
        self.stem = nn.Sequential(*conv(2, 16, 3, stride=2), separable(16, 16))
        self.down = nn.ModuleList(
            [_level(16, 32, 1), _level(32, 64, 2), _level(64, 128, 2).append(PyramidPooling(128))]
        )
        self.gas_embedding = nn.Parameter(torch.zeros(len(GASES), 128))
        self.exchange = GatedExchange(128)
        self.up = nn.ModuleList([separable(128 + 64, 64), separable(64 + 32, 32), separable(32 + 16, 16)])
        self.masks = nn.ModuleList(nn.Conv2d(16, MASKS, 1) for _ in GASES)
        self.amounts = nn.Conv2d(16, AMOUNTS, 1)
        self.health = HealthHead(len(GASES) * (AMOUNTS + 3 + (0 if one_camera else SCALES)), dropout=dropout)
        self.moving = nn.Conv2d(2, 16, 3, stride=2, padding=1, bias=False) if videos else None
        if self.moving is not None:
            nn.init.zeros_(self.moving.weight)  # until it has learned from videos, their frames are single ones

    def forward(self, batch: Batch) -> Batch:
        frames, present = torch.cat([batch[gas] for gas in GASES]), batch["present"].T.flatten()  # 2 B: CO2, then CH4
        standard, spread = standardised(frames)
        frames = frames if self.one_camera else standard
        moved = [batch[f"{gas}_motion"] for gas in GASES if f"{gas}_motion" in batch]
        fine = self.features(frames, present[:, None, None, None], torch.cat(moved) if moved else None)
        logits = torch.cat([head(x) for head, x in zip(self.masks, fine.chunk(2), strict=True)])  # (2 B, 3, H/2, W/2)
        # the class learns from amounts in the mask, but does not bend the mask to its own end: detach
        probability, own = softmax(logits.detach()), resize(frames, fine.shape[-2:])
        amounts = [self.measure(own, probability, fine)]
        if not self.one_camera:
            amounts.append(self.scales(own, swapped(own * present[:, None, None, None]), probability, spread))
        ph, class_logits = self.health(torch.stack(torch.cat(amounts, dim=1).chunk(2), dim=1), batch["present"])
        masks = resize(where_present(logits, present), frames.shape[-2:]).chunk(2)
        return {f"{gas}_logits": mask for gas, mask in zip(GASES, masks, strict=True)} | {
            "class_logits": class_logits,
            "ph": ph,
        }

    def features(self, frames: Tensor, there: Tensor, moved: Tensor | None = None) -> Tensor:
        """Fine features (2 B, 16, H/2, W/2) of frames (2 B, 1, H, W), those that are `there` (2 B, 1, 1, 1).

        `moved` (2 B, 2, H, W) is what moves in them (`video.motion`), where they are of videos.
        """
        known = frames * there
        x = self.stem[0](torch.cat([known, swapped(known)], dim=1))  # own beside other frame
        if self.moving is not None and moved is not None:
            x = x + self.moving(moved * there)
        levels = [self.stem[1:](x)]
        for level in self.down:
            levels.append(level(levels[-1]))  # (2 B, 32, H/4, W/4), (2 B, 64, H/8, W/8), (2 B, 128, H/16, W/16)
        x = levels[-1] + self.gas_embedding.repeat_interleave(len(frames) // 2, dim=0)[:, :, None, None]
        x = self.exchange(x, swapped(x * there))
        for level, skip in zip(self.up, levels[-2::-1], strict=True):
            x = level(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
        return x

    def measure(self, frame: Tensor, probability: Tensor, fine: Tensor) -> Tensor:
        """Logarithms of what a plume holds, (B, AMOUNTS + 3): its area, contrast against the wall, learned amounts.

        The wall behind the gas is what is seen of it all over the frame, or around the place.
        """
        wall, plume = probability[:, BACKGROUND, None], probability[:, GAS, None]
        level = (frame * wall).sum(dim=(2, 3), keepdim=True) / wall.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        around = (smooth(frame * wall) + 0.02 * level) / (smooth(wall) + 0.02)
        contrast = [((frame - behind) * plume).mean(dim=(2, 3)).abs() for behind in (level, around)]
        learned = (softplus(self.amounts(fine)) * plume).mean(dim=(2, 3))
        return torch.log(LEAST + torch.cat([plume.mean(dim=(2, 3)), *contrast, learned], dim=1))

    def scales(self, own: Tensor, other: Tensor, probability: Tensor, spread: Tensor) -> Tensor:
        """Logarithms of what tells a camera's gain, (B, SCALES), so that contrasts of two cameras compare.

        They are the frame's deviation, that of its wall, how much of the wall both cameras see, and noise from pixel to
        pixel: absolute contrast is left to see where cameras are alike, and a ratio to the wall where they are not.
        """
        wall = probability[:, BACKGROUND, None]
        share = wall.sum(dim=(2, 3)).clamp(min=1)
        one, two = (x - (x * wall).sum(dim=(2, 3), keepdim=True) / share[:, :, None, None] for x in (own, other))
        varied, both = (one**2 * wall).sum(dim=(2, 3)) / share, (one * two * wall).sum(dim=(2, 3)) / share
        noise = (own[..., 1:] - own[..., :-1]).abs().mean(dim=(2, 3))
        return torch.cat([spread.flatten(1).log(), *(torch.log(LEAST + x) for x in (varied, both.abs(), noise))], dim=1)


class GatedExchange(nn.Module):
    """A gas takes from the other what its own features let through: x + sigmoid(gate([x, other])) * value(other)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Conv2d(2 * channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x + self.gate(torch.cat([x, other], dim=1)).sigmoid() * self.value(other)


class HealthHead(nn.Module):
    """From the amounts in both plumes to a pH with its uncertainty, and the classes that two thresholds make of it."""

    def __init__(self, inputs: int, *, dropout: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.body = nn.Sequential(
            nn.Linear(inputs + len(GASES), 64), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(64, 2)
        )
        self.threshold = nn.Parameter(torch.tensor([0.15, 0.15]).log())  # half way to the next pH

    def forward(self, amounts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        known = self.norm(amounts.flatten(1)).view_as(amounts) * present[:, :, None]  # (B, 2, amounts and scales)
        ph, uncertainty = self.body(torch.cat([known.flatten(1), present], dim=1)).unbind(dim=1)
        return ph, ordered(ph, self.threshold.exp(), scale=0.1 + F.softplus(uncertainty - 2))


def ordered(ph: Tensor, threshold: Tensor, *, scale: Tensor) -> Tensor:
    """Log-probabilities (B, 3) of above, between and below: a logistic of width `scale` about `ph`, cut in two places.

    >>> ordered(torch.tensor([0.0]), torch.tensor([1.0, 1.0]), scale=torch.tensor([1e-3])).exp()  # (0, 1, 0)
    """
    above, below = (ph - threshold[0]) / scale, (ph + threshold[1]) / scale
    # log(s(below) - s(above)), s the sigmoid, without the cancellation of that difference
    between = F.logsigmoid(below) + F.logsigmoid(-above) + torch.log(-torch.expm1(above - below))
    return torch.stack([F.logsigmoid(above), between, F.logsigmoid(-below)], dim=1)


def standardised(frame: Tensor) -> tuple[Tensor, Tensor]:
    """A frame of no mean and unit deviation, whatever the camera's level and gain, and the deviation (B, 1, 1, 1)."""
    level = frame.mean(dim=(2, 3), keepdim=True)
    spread = ((frame - level) ** 2).mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=FLAT)
    return (frame - level) / spread, spread


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) in steps that ONNX Runtime is fast at; its own takes several times as long."""
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def softmax(x: Tensor) -> Tensor:
    """`x.softmax(dim=1)`, for the same reason."""
    raised = (x - x.amax(dim=1, keepdim=True)).exp()
    return raised / raised.sum(dim=1, keepdim=True)


def swapped(x: Tensor) -> Tensor:
    """Rows of both gases (2 B, ...), all CO2 and then all CH4, as rows of the other gas."""
    return torch.cat(x.chunk(2)[::-1])


def smooth(x: Tensor, *, reach: int = 8) -> Tensor:
    """Mean over a square of 2 `reach` + 1 pixels; beyond the rim there is nothing."""
    line = x.new_full((1, 1, 2 * reach + 1, 1), 1 / (2 * reach + 1))  # a convolution is faster than pooling
    return F.conv2d(F.conv2d(x, line, padding=(reach, 0)), line.transpose(2, 3), padding=(0, reach))


def where_present(logits: Tensor, present: Tensor) -> Tensor:
    """`logits` (B, 3, H, W), but background where there is no frame; `present` (B,)."""
    nothing = torch.zeros(logits.shape[1]).to(logits)
    nothing[BACKGROUND] = CERTAIN
    return torch.where(present[:, None, None, None] > 0, logits, nothing[:, None, None])


def _level(inputs: int, outputs: int, residuals: int) -> nn.Sequential:
    deep = (InvertedResidual(outputs, outputs, expansion=2) for _ in range(residuals))
    return nn.Sequential(separable(inputs, outputs, stride=2), *deep)
