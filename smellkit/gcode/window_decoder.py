"""Our decoder: one network, two views of a window, position as Fourier features, digits, a grammar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from smellkit.gcode.decoder import TokenDecoder
from smellkit.gcode.recordings import COLUMNS, CONTINUOUS, OPERATIONS, POSITION_COLUMNS, node
from smellkit.gcode.tokens import Grammar
from smellkit.task import Batch

if TYPE_CHECKING:
    from smellkit.gcode.data import Scaling

WAVELENGTHS = tuple(2.0**power for power in range(1, 9))  # mm: from 2 to 256, the width of the bed
FOURIER = 3 * 2 * len(WAVELENGTHS)  # 48: sine and cosine of three axes
EIGHTHS = 8
REACH = 4.0  # deviations: what lies further out is no more than that
NEAR, FAR, EXACT = 0.1, 5.0, 0.02  # of the nearest distance, mm and mm: see `PathKNN`
NOTHING = -80.0  # e to that adds nothing to 1; less of it is no normal number, and ten times as slow


def fourier_features(position: Tensor, millimetres: Tensor) -> Tensor:
    """Sine and cosine of a scaled position (..., 3) at every wavelength, (..., 48); zeros where it is hidden.

    `millimetres` (3,) are those in one unit of it. A network reads 0.1 mm from these, but not from one large number.
    """
    known = (position != 0).any(dim=-1, keepdim=True)
    wavelengths = torch.tensor(WAVELENGTHS, dtype=position.dtype, device=position.device)
    phase = (position * millimetres)[..., None] * (2 * math.pi / wavelengths)  # (..., 3, 8)
    return torch.cat([phase.sin().flatten(-2), phase.cos().flatten(-2)], dim=-1) * known


@dataclass(frozen=True)
class Shape:
    """What a `WindowDecoder` is made of, and how much is hidden from it in training."""

    width: int = 128
    layers: int = 1  # of the token decoder
    dropout: float = 0.2
    hide_node: float = 0.15
    hide_position: float = 0.7
    fourier: bool = True
    structure: bool = True
    summary: bool = True


class WindowDecoder(nn.Module):
    """Name the operation, the line, and the line's tokens, from one window.

        continuous (64, 155) + Fourier features of position + categorical (64, 4)
          -> linear -> two convolutions, 64 -> 16 steps -> BiGRU -> memory (16, 128)
          -> mean and maximum -> operation (9), line (L); both again from `SummaryMLP`, and the mean of the two
          -> of each step: position (3), also where it is hidden, and the line just then (L + 1)
          -> in training: decoder of one layer -> flat token (V) + type, command, parameter, sign, digits (82)

    The lines' probabilities are those of the line head, pulled to the lines of training windows on the same path, and
    the answer is the likeliest line, whole. Written token by token it was exact less often (validation parts of G, all
    folds and three seeds), so the token decoder is there for what its loss teaches the memory.
    In training, whole nodes and the position are hidden at random, so that one model reads with and without them.
    """

    def __init__(self, grammar: Grammar, scaling: Scaling, shape: Shape, *, path_knn: PathKNN | None = None):
        super().__init__()
        self.grammar, self.shape, self.path_knn = grammar, shape, path_knn
        width, dropout, nodes = shape.width, shape.dropout, list(COLUMNS)
        self.node_of = nn.Buffer(torch.tensor([nodes.index(node(c)) for c in CONTINUOUS]), persistent=False)
        self.millimetres = nn.Buffer(torch.tensor(scaling.millimetres), persistent=False)
        features = len(CONTINUOUS) + FOURIER * shape.fourier
        self.stem = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.categories = nn.ModuleList(nn.Embedding(n, width) for n in scaling.cardinalities)
        self.downsample = nn.Sequential(
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU(), nn.Dropout(dropout),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.GELU(),
        )  # fmt: skip
        self.bigru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Linear(width, 3)
        self.step_line = nn.Linear(width, len(grammar) + 1)  # the last is any other line
        self.operation = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, len(OPERATIONS)))
        self.line = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, len(grammar))
        )
        classes = {"operations": len(OPERATIONS), "lines": len(grammar)}
        self.summary = SummaryMLP(len(CONTINUOUS), **classes) if shape.summary else None
        size = {"width": width, "layers": shape.layers, "heads": 4, "inner": 2}
        self.decoder = TokenDecoder(grammar.vocabulary, dropout=dropout, **size)
        self.context = nn.Linear(2 * width, width)

    def forward(self, batch: Batch) -> Batch:
        """What `encode` gives; with `open` tokens in the batch also the scores of each, from the true ones before it.

        These are `token` (B, 8, V), all heads together, and `structured` (B, 8, 82).
        """
        outputs = self.encode(batch["continuous"], batch["categorical"])
        if "open" not in batch:
            return outputs
        structured, token = self.decoder.line(batch["open"], outputs["context"], outputs["memory"])
        return outputs | {"structured": structured, "token": self.token_scores(structured, token)}

    def encode(self, continuous: Tensor, categorical: Tensor) -> Batch:
        """Outputs `memory` (B, 16, width), `context` (B, width), `position` (B, 16, 3), `step_line` (B, 16, L + 1).

        `operations` (B, views, 9) and `lines` (B, views, L) are log-probabilities of each view, `operation` (B, 9) and
        `learned` (B, L) the mean of the views; `line` is that with the nearest paths (in training without). `seen` (B,)
        says where the position is known.
        """
        x = shown = self._hide(continuous) if self.training else continuous  # (B, 64, 155)
        if self.shape.fourier:
            x = torch.cat([x, fourier_features(x[..., POSITION_COLUMNS], self.millimetres)], dim=-1)  # (B, 64, 203)
        x = self.stem(x)  # (B, 64, width)
        for column, table in enumerate(self.categories):
            x = x + table(categorical[..., column])
        x = self.downsample(x.transpose(1, 2)).transpose(1, 2)  # (B, 16, width)
        memory = self.norm(x + self.bigru(x)[0])
        pooled = torch.cat([memory.mean(dim=1), memory.amax(dim=1)], dim=1)  # (B, 2 width)
        views = [(self.operation(pooled), self.line(pooled))]
        if self.summary is not None:
            views.append(self.summary(shown))
        operations, lines = (torch.stack(logits, dim=1).log_softmax(dim=-1) for logits in zip(*views, strict=True))
        line = learned = lines.mean(dim=1)
        if self.path_knn is not None and not self.training:
            line = self.path_knn(line.softmax(dim=1), continuous[..., POSITION_COLUMNS] * self.millimetres).log()
        return {
            "memory": memory,
            "seen": (continuous[..., POSITION_COLUMNS] != 0).flatten(1).any(dim=1),
            "context": self.context(pooled),
            "operation": operations.mean(dim=1),
            "operations": operations,
            "lines": lines,
            "line": line,
            "learned": learned,
            "position": self.position(memory),
            "step_line": self.step_line(memory),
        }

    def token_scores(self, structured: Tensor, token: Tensor) -> Tensor:
        """Scores of tokens (..., V): the flat head, plus the log-probabilities of the structured heads."""
        return token + self.grammar.head_log_probs(structured) if self.shape.structure else token

    def _hide(self, x: Tensor) -> Tensor:
        """Windows (B, 64, 155) with whole nodes, and the position, set to 0 at random."""
        probability = torch.full((len(x), len(COLUMNS)), self.shape.hide_node, device=x.device)
        probability[:, self.node_of[POSITION_COLUMNS[0]]] = self.shape.hide_position
        return x * (torch.rand_like(probability) >= probability)[:, self.node_of][:, None]


class PathKNN(nn.Module):
    """Which lines were executed where the tool now moves: windows of training on the same path, softly counted.

        p(line) = trust * share of the line among the nearest paths + (1 - trust) * p_network(line)
        share ~ exp(-((distance / nearest)^2 - 1) / 2 near^2),   trust = 0.99

    `distance` is the root mean square in mm over eight positions, `nearest` the least of them, or 0.02 mm, `near` 0.1;
    without a position the network's probability stands. `positions` (M, 64, 3) in mm, `line` (M,); nothing here is
    learned. `between` (M,) are windows that begin where none of training does, for a recording that begins there; where
    every path is further than 5 mm they don't count, since moments are confused. Chosen on validation parts of G, with
    their paths as they are and moved.
    """

    def __init__(self, positions: Tensor, line: Tensor, between: Tensor):
        super().__init__()
        self.centre = nn.Buffer(positions.mean(dim=(0, 1)))
        self.keys = nn.Buffer(self._path(positions))
        self.line, self.between = nn.Buffer(line), nn.Buffer(between)
        self.squares = nn.Buffer((self.keys**2).sum(dim=1), persistent=False)
        self.register_load_state_dict_post_hook(PathKNN._loaded)

    def _loaded(self, _: object) -> None:
        self.squares.copy_((self.keys**2).sum(dim=1))

    def _path(self, positions: Tensor) -> Tensor:
        return (positions - self.centre)[:, ::8].flatten(1)

    def forward(self, probability: Tensor, positions: Tensor) -> Tensor:
        """Probability of each line, (B, lines), for those of the network and a path (B, 64, 3) in mm."""
        known = (positions != 0).flatten(1).any(dim=1, keepdim=True)
        query = self._path(positions)
        # eight times the squared distances, (B, M): as few passes over the many windows as can be
        square = ((query**2).sum(1, keepdim=True) + self.squares - 2 * query @ self.keys.T).clamp(min=0)
        square = square + 8e6 * (square.amin(dim=1, keepdim=True) > 8 * FAR**2) * self.between
        nearest = square.amin(dim=1, keepdim=True).clamp(min=8 * EXACT**2)
        nearness = torch.exp((0.5 / NEAR**2 - square * (0.5 / NEAR**2 / nearest)).clamp(min=NOTHING))
        counted = torch.zeros_like(probability).index_add(1, self.line, nearness)
        trust = 0.99 * known
        return trust * counted / counted.sum(dim=1, keepdim=True) + (1 - trust) * probability + 1e-12


def summary_features(x: Tensor) -> Tensor:
    """Of each channel of windows (B, 64, C): mean of every eighth, deviation, least, most, mean change: (B, 12 C)."""
    eighths = x.unflatten(1, (EIGHTHS, -1)).mean(dim=2).flatten(1)
    change = (x[:, 1:] - x[:, :-1]).abs().mean(dim=1)
    return torch.cat([eighths, x.std(dim=1), x.amin(dim=1), x.amax(dim=1), change], dim=1)


class SummaryMLP(nn.Module):
    """Operation and line from the summary features of a window.

    continuous (B, 64, C) -> summary features (B, 12 C) -> standard units -> noise, in training
      -> two dense layers -> operation (B, `operations`), line (B, `lines`)
    """

    def __init__(
        self, channels: int, *, operations: int, lines: int, hidden: int = 384, dropout: float = 0.4, noise: float = 0.5
    ):
        super().__init__()
        wide = (EIGHTHS + 4) * channels
        self.outputs, self.noise = (operations, lines), noise
        self.centre, self.scale = nn.Buffer(torch.zeros(wide)), nn.Buffer(torch.ones(wide))
        layers: list[nn.Module] = []
        for inside in (wide, hidden):
            layers += [nn.Linear(inside, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Dropout(dropout)]
        self.dense = nn.Sequential(*layers, nn.Linear(hidden, sum(self.outputs)))

    def prepare(self, windows: Tensor) -> None:
        """Take the standard units from the training windows (n, 64, C)."""
        features = summary_features(windows)
        deviation = features.std(dim=0)
        self.centre.copy_(features.mean(dim=0))
        self.scale.copy_(torch.where(deviation < 1e-6, torch.ones_like(deviation), deviation))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = ((summary_features(x) - self.centre) / self.scale).clamp(-REACH, REACH)
        if self.training:
            features = features + self.noise * torch.randn_like(features)
        operation, line = self.dense(features).split(self.outputs, dim=1)
        return operation, line
