"""From memory to tokens: a transformer decoder with structured heads, and the published use of it.

A decoder sees a whole line at once in training, and one token at a time, with the earlier keys and values kept in a
cache of fixed length, in decoding and in ONNX.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.gcode.encoder import WIDTH
from smellkit.gcode.recordings import OPERATIONS
from smellkit.gcode.tokens import BOS, EOS, OUTPUTS, PAD, STEPS, Vocabulary
from smellkit.task import Batch

Choose = Callable[[Tensor, Tensor, int], Tensor]


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the memory, feed-forward; each after a norm, each added back.

        x (B, t, width), keys and values of the memory (2, B, heads, steps, width / heads) ---> x (B, t, width)

    With `cache` (2, B, heads, 8, width / heads) x is the token at `step` alone. The keys and values come back too.
    """

    def __init__(self, width: int, *, heads: int, dropout: float = 0.1, inner: int = 4):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_proj, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.kv_proj = nn.Linear(width, 2 * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed_forward = nn.Sequential(
            nn.Linear(width, inner * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def remember(self, memory: Tensor) -> Tensor:
        """Keys and values of the memory (B, steps, width): once a window."""
        return torch.stack([self.split_heads(part) for part in self.kv_proj(memory).chunk(2, dim=-1)])

    def forward(
        self, x: Tensor, memory: Tensor, cache: Tensor | None = None, step: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rate = self.dropout if self.training else 0.0
        query, keys, values = map(self.split_heads, self.qkv(self.norms[0](x)).chunk(3, dim=-1))
        if cache is None or step is None:  # a whole line: no token sees a later one
            attended = F.scaled_dot_product_attention(query, keys, values, is_causal=True, dropout_p=rate)
        else:  # one token: it sees the cache up to its own step
            position = torch.arange(STEPS, device=x.device)
            here = position.eq(step)[:, None]
            keys, values = torch.where(here, keys, cache[0]), torch.where(here, values, cache[1])
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=(position <= step)[None])
        x = x + self.drop(self.self_out(self.merge_heads(attended)))
        query = self.split_heads(self.q_proj(self.norms[1](x)))
        attended = F.scaled_dot_product_attention(query, memory[0], memory[1], dropout_p=rate)
        x = x + self.drop(self.cross_out(self.merge_heads(attended)))
        return x + self.drop(self.feed_forward(self.norms[2](x))), torch.stack([keys, values])

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, t, width) as (B, heads, t, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """The inverse of `split_heads`."""
        return x.transpose(1, 2).flatten(2)


class TokenDecoder(nn.Module):
    """Tokens so far in, what comes next out.

    tokens (B, t) -> embedding + position + context (B, width) -> layers over the memory -> norm
      -> structured (B, t, 82): type, command, parameter, sign and six digits of the next token, a head each
      -> token (B, t, V): the flat head
    """

    def __init__(self, vocabulary: Vocabulary, *, width: int, layers: int, heads: int, dropout: float, inner: int = 4):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(STEPS, width) * 0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads=heads, dropout=dropout, inner=inner) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.structured = nn.Linear(width, OUTPUTS)
        self.token = nn.Linear(width, len(vocabulary))
        self.cache_shape = (layers, 2, 1, heads, STEPS, width // heads)  # of one line

    def remember(self, memory: Tensor) -> Tensor:
        """Keys and values of the memory for each layer, (layers, 2, B, heads, steps, width / heads): once a window."""
        return torch.stack([layer.remember(memory) for layer in self.layers])  # type: ignore[operator]

    def line(self, target: Tensor, context: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Structured (B, 8, 82) and flat logits (B, 8, V) of each token of `target` (B, 8), from the ones before it."""
        before = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        x = self.embed(before) + self.position + context[:, None]
        for layer, keys in zip(self.layers, memory, strict=True):
            x, _ = layer(x, keys)
        x = self.norm(x)
        return self.structured(x), self.token(x)

    def next(
        self, token: Tensor, step: Tensor, context: Tensor, memory: Tensor, cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Structured (B, 82) and flat logits (B, V) of the token after `token` (B,), and the cache with it."""
        x = (self.embed(token) + self.position[step] + context)[:, None]
        kept = []
        for number, layer in enumerate(self.layers):
            x, keys = layer(x, memory[number], cache[number], step)
            kept.append(keys)
        x = self.norm(x)[:, 0]
        return self.structured(x), self.token(x), torch.stack(kept)

    @torch.no_grad()
    def generate(self, context: Tensor, memory: Tensor, *, choose: Choose) -> Tensor:
        """Free-running tokens (B, 8), padded after EOS; `choose(structured, flat, step)` picks each next one."""
        layers, pair, _, *rest = self.cache_shape
        cache = torch.zeros(layers, pair, len(context), *rest)
        token = torch.full((len(context),), BOS)
        done, line = torch.zeros(len(context), dtype=torch.bool), []
        for step in range(STEPS):
            structured, flat, cache = self.next(token, torch.tensor([step]), context, memory, cache)
            token = choose(structured, flat, step)
            line.append(torch.where(done, PAD, token))
            done |= token == EOS
        return torch.stack(line, dim=1)


class SensorDecoder(TokenDecoder):
    """The published decoder as it is claimed to be, all of its heads trained; it sees the encoder's memory alone.

    memory (B, 64, 128) of the frozen encoder -> linear -> keys and values of 4 layers, 8 heads, width 192
    predicted operation (B, 9) -> softmax -> linear -> context (B, 192), added to every token
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        memory: int = WIDTH,
        width: int = 192,
        layers: int = 4,
        heads: int = 8,
        dropout: float = 0.3,
    ):
        super().__init__(vocabulary, width=width, layers=layers, heads=heads, dropout=dropout)
        self.operation = nn.Linear(len(OPERATIONS), width)
        self.memory = nn.Linear(memory, width)

    def forward(self, batch: Batch) -> Batch:
        """Outputs `token` (B, 8, 668) and `structured` (B, 8, 82), each from the true tokens before it."""
        structured, token = self.line(batch["published"], *self.inputs(batch["memory"], batch["logits"]))
        return {"token": token, "structured": structured, "operation": batch["logits"]}

    def inputs(self, memory: Tensor, operation: Tensor) -> tuple[Tensor, Tensor]:
        """Context and keys of a window, from the encoder's memory and its logits of the operation."""
        return self.operation(operation.softmax(dim=1)), self.remember(self.memory(memory.float()))

    def free(self, memory: Tensor, operation: Tensor) -> Tensor:
        """Greedy tokens (B, 8), padded after EOS."""
        self.eval()
        return self.generate(*self.inputs(memory, operation), choose=lambda _, flat, step: flat.argmax(dim=1))


class TwoStage(nn.Module):
    """Encoder and decoder in one model, for training both."""

    def __init__(self, encoder: nn.Module, decoder: SensorDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, batch: Batch) -> Batch:
        encoded = self.encoder(batch)
        outputs = self.decoder(batch | {"memory": encoded["memory"], "logits": encoded["operation"]})
        return outputs | {"restored": encoded["restored"]}
