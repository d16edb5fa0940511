"""The text that the decoder learns from and that the prompts are cut from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Corpus:
    """A text as int64 byte values: the part to train on and the part kept for prompts."""

    training: Tensor
    held_out: Tensor


def read_text(path: Path | None) -> bytes:
    """The file's bytes, or the language reference that every CPython carries for `help()`."""
    if path is not None:
        return path.read_bytes()
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise SystemExit("this Python has no pydoc_data: name a text with --text FILE") from error
    return "\n".join(topics.values()).encode()


def split_text(text: bytes, window_tokens: int, device: torch.device) -> Corpus:
    """Keeps the end of the text out of training; both parts must hold a window and one byte."""
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device, torch.int64)
    held_out_tokens = int(len(tokens) * HELD_OUT_SHARE)
    if held_out_tokens <= window_tokens:
        needed = int((window_tokens + 1) / HELD_OUT_SHARE)
        raise SystemExit(f"the text has {len(tokens)} bytes, {needed} are needed: use a longer one")
    return Corpus(tokens[:-held_out_tokens], tokens[-held_out_tokens:])


def cut_windows(
    tokens: Tensor, count: int, window_tokens: int, generator: torch.Generator
) -> Tensor:
    """`count` windows from anywhere in the text, int64 [count, window_tokens]."""
    starts = torch.randint(len(tokens) - window_tokens + 1, (count, 1), generator=generator)
    return tokens[(starts + torch.arange(window_tokens)).to(tokens.device)]


def cut_prompts(
    tokens: Tensor, count: int, shortest: int, longest: int, generator: torch.Generator
) -> list[Tensor]:
    """`count` prompts whose lengths are spread evenly from `shortest` to `longest` tokens."""
    lengths = torch.linspace(shortest, longest, count).round().long()
    shuffled = lengths[torch.randperm(count, generator=generator)].tolist()
    return [cut_windows(tokens, 1, length, generator)[0] for length in shuffled]


def printable(tokens: Tensor) -> str:
    """The text of some tokens; bytes that are no UTF-8 become replacement characters."""
    return bytes(tokens.tolist()).decode(errors="replace")
