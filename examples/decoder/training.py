"""Trains the decoder on a text for a given time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import Decoder, causal_attention
from .text import Corpus, cut_windows

LEARNING_RATE = 6e-3
WARM_UP_SHARE = 0.05
STEP_TOKENS = 1280
# Short windows make faster steps and teach the spelling; the rest of the time goes to windows as
# long as the sequences to be decoded, so that every position has been seen.
SHORT_WINDOW_SHARE = 0.7
SHORT_WINDOWS_PER_CONTEXT = 4


def train(
    model: Decoder,
    corpus: Corpus,
    seconds: float,
    generator: torch.Generator,
    on_step: Callable[[float, str], None],
) -> int:
    """Trains for `seconds` and returns the number of steps, at least one.

    `on_step` is told the share of the time that is over and the loss, after every step.
    """
    optimizers = make_optimizers(model)
    start = time.perf_counter()
    steps, elapsed_share = 0, 0.0
    while elapsed_share < 1.0:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * schedule(elapsed_share)
        window_tokens = model.config.context_tokens
        if elapsed_share < SHORT_WINDOW_SHARE:
            window_tokens = max(1, window_tokens // SHORT_WINDOWS_PER_CONTEXT)
        windows = max(1, STEP_TOKENS // window_tokens)
        batch = cut_windows(corpus.training, windows, window_tokens + 1, generator)

        loss = next_token_loss(model, batch)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

        steps += 1
        elapsed_share = min(1.0, (time.perf_counter() - start) / seconds) if seconds > 0 else 1.0
        on_step(elapsed_share, f"step {steps}, loss {loss.item():.2f}")
    return steps


def make_optimizers(model: Decoder) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [parameter for parameter in model.layers.parameters() if parameter.dim() == 2]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return [
        torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95)),
    ]


def schedule(elapsed_share: float) -> float:
    """Factor of the learning rate: a short rise, then half a cosine down to zero."""
    rise = min(1.0, elapsed_share / WARM_UP_SHARE)
    return rise * 0.5 * (1.0 + math.cos(math.pi * elapsed_share))


def next_token_loss(model: Decoder, windows: Tensor) -> Tensor:
    """Mean cross-entropy in nats per byte of predicting each next byte of the windows."""
    positions = torch.arange(windows.size(1) - 1, device=windows.device)
    logits = model(windows[:, :-1], positions, causal_attention)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.inference_mode()
def held_out_loss(model: Decoder, corpus: Corpus) -> float:
    """Loss on text that training does not see, always the same windows of it."""
    generator = torch.Generator().manual_seed(0)
    windows = cut_windows(corpus.held_out, 8, model.config.context_tokens + 1, generator)
    return next_token_loss(model, windows).item()
