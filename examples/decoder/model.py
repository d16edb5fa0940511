"""A small Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

The model does not know where its keys and values are kept. Each layer hands its query, key and
value of the new tokens to an `Attend` function, which stores what it wants and returns the
attention output: plain causal attention in training, a dense or a paged cache in decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# attend(layer, query [..., tokens, heads, head_size], key and value [..., tokens, kv_heads,
# head_size]) returns the attention output in the shape of the query.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the model. `context_tokens` is the longest sequence it is trained for."""

    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    head_size: int = 32
    vocabulary: int = 256  # one token per byte
    context_tokens: int = 640
    rope_base: float = 10000.0

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv heads evenly")

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.heads * self.head_size


class Attention(nn.Module):
    """Projections and rotary positions of one layer; the attention itself is `attend`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        kv_width = config.kv_heads * config.head_size
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, kv_width, bias=False)
        self.value = nn.Linear(config.width, kv_width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], layer: int, attend: Attend
    ) -> Tensor:
        query = rotate(self.query(x).unflatten(-1, (-1, self.head_size)), rotation)
        key = rotate(self.key(x).unflatten(-1, (-1, self.head_size)), rotation)
        value = self.value(x).unflatten(-1, (-1, self.head_size))
        return self.output(attend(layer, query, key, value).flatten(-2))


class SwiGLU(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width // 3
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width)
        self.feed_forward = SwiGLU(config.width)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], layer: int, attend: Attend
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, layer, attend)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(nn.Module):
    """Next-token logits for `tokens` at `positions` (both int64 [..., tokens])."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        rotation = rotation_of(positions, self.config)
        x = self.embedding(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, index, attend)
        return F.linear(self.norm(x), self.embedding.weight)


def rotation_of(positions: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every rotary angle, [..., tokens, 1, head_size / 2] (1: any head)."""
    half = config.head_size // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / half
    angles = positions[..., None, None] * config.rope_base**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding, NeoX style: element i turns with element i + head_size / 2."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def causal_attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every token attends to itself and to those before it; nothing is remembered."""
    query, key, value = (tensor.transpose(-3, -2) for tensor in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return out.transpose(-3, -2)
