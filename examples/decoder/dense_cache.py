"""The reference: keys and values in one dense tensor per layer, attention by PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import Attend, DecoderConfig, causal_attention


class DenseCache:
    """Room for `max_sequences` sequences of the full context each, used or not."""

    def __init__(self, config: DecoderConfig, max_sequences: int, device: torch.device) -> None:
        shape = (
            config.layers,
            max_sequences,
            config.context_tokens,
            config.kv_heads,
            config.head_size,
        )
        self.keys = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.lengths: list[int] = []

    def prefill(self, num_tokens: int) -> Attend:
        """Starts a new sequence; the function returned takes its prompt's keys and values."""
        sequence = len(self.lengths)
        self.lengths.append(num_tokens)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.keys[layer, sequence, :num_tokens] = key
            self.values[layer, sequence, :num_tokens] = value
            return causal_attention(layer, query, key, value)

        return attend

    def decode(self) -> Attend:
        """Makes room for one more token of every sequence."""
        device = self.keys.device
        sequences = torch.arange(len(self.lengths), device=device)
        positions = torch.tensor(self.lengths, device=device)
        self.lengths = [length + 1 for length in self.lengths]
        longest = max(self.lengths)
        visible = torch.arange(longest, device=device) <= positions[:, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.keys[layer, sequences, positions] = key
            self.values[layer, sequences, positions] = value
            keys = self.keys[layer, : len(sequences), :longest].transpose(1, 2)
            values = self.values[layer, : len(sequences), :longest].transpose(1, 2)
            out = F.scaled_dot_product_attention(
                query[:, :, None], keys, values, attn_mask=visible[:, None, None], enable_gqa=True
            )
            return out[:, :, 0]

        return attend
