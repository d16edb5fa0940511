"""Greedy decoding of a batch of prompts with any cache, and the comparison of two runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .model import Attend, Decoder

# Two fp32 attentions that add in a different order; a wrong page shows far above this.
LOGIT_TOLERANCE = 1e-3


class Cache(Protocol):
    """Where the keys and values live: `DenseCache` or `PagedCache`."""

    def prefill(self, num_tokens: int) -> Attend:
        """Starts the next sequence with a prompt of `num_tokens`."""

    def decode(self) -> Attend:
        """Makes room for one more token of every sequence."""


@dataclass(frozen=True)
class Generation:
    """What a batch of prompts was continued with."""

    tokens: Tensor  # int64 [sequences, new tokens]
    logits: Tensor  # fp32 [sequences, new tokens, vocabulary], those the tokens were chosen by
    decode_seconds: float
    decoded_tokens: int  # all but the first of each sequence, which the prefill gives

    @property
    def tokens_per_second(self) -> float:
        """Rate of the decode steps, without the prefill."""
        return self.decoded_tokens / self.decode_seconds


@torch.inference_mode()
def generate(
    model: Decoder,
    cache: Cache,
    prompts: list[Tensor],
    new_tokens: int,
    on_step: Callable[[int], None],
) -> Generation:
    """Continues every prompt by `new_tokens` greedy tokens, all sequences in one batch.

    `on_step` is called with the number of tokens that each sequence has, after each step.
    """
    device = prompts[0].device
    last_logits = []
    for prompt in prompts:
        positions = torch.arange(len(prompt), device=device)
        last_logits.append(model(prompt, positions, cache.prefill(len(prompt)))[-1])
    all_logits = [torch.stack(last_logits)]
    on_step(1)

    positions = torch.tensor([len(prompt) for prompt in prompts], device=device)
    start = time.perf_counter()
    for step in range(1, new_tokens):
        tokens = all_logits[-1].argmax(dim=-1)
        all_logits.append(model(tokens, positions, cache.decode()))
        positions += 1
        on_step(step + 1)
    logits = torch.stack(all_logits, dim=1).cpu()  # on a GPU, this waits for the last step
    seconds = time.perf_counter() - start
    return Generation(logits.argmax(dim=-1), logits, seconds, len(prompts) * (new_tokens - 1))


@dataclass(frozen=True)
class Comparison:
    """How far a run agrees with the reference."""

    tokens: int
    equal_tokens: int
    largest_logit_difference: float

    @property
    def agrees(self) -> bool:
        """Every token equal, and no logit off by more than rounding (false for NaN)."""
        close = self.largest_logit_difference <= LOGIT_TOLERANCE
        return self.equal_tokens == self.tokens and close


def compare(run: Generation, reference: Generation) -> Comparison:
    """Compares all tokens, and the logits up to where each sequence parts from the reference.

    After the first different token the two runs continue different texts: their logits have
    nothing to do with each other any more.
    """
    equal = run.tokens == reference.tokens
    parted_before = (~equal).cumsum(dim=1) - (~equal).long()
    differences = (run.logits - reference.logits).abs()[parted_before == 0]
    return Comparison(equal.numel(), int(equal.sum()), differences.max().item())
