"""Calls of cache writers with many and few tokens, in runs and alone: CUDA beside the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from cache.inputs import slots_in_runs
from cache.writers import Caches, Writer
from tensor_bytes import byte_view

BLOCK_SIZE = 16
SINGLE = 70  # tokens around a prompt
NOWHERE = torch.tensor([-1, -1, -2, 2**31 + 3, 2**40, 2**63 - 1, -(2**63)])


def single_slots(tokens: int, generator: torch.Generator) -> Tensor:
    """Anywhere in as many pages as `single_pages` says."""
    slots = torch.randperm(single_pages(tokens) * BLOCK_SIZE, generator=generator)[:tokens]
    skipped = torch.rand(tokens, generator=generator) < 0.1
    return torch.where(skipped, NOWHERE[torch.arange(tokens) % len(NOWHERE)], slots)


def single_pages(tokens: int) -> int:
    return tokens // 8 + 2


def slots_around_a_prompt(tokens: int, generator: torch.Generator) -> Tensor:
    """In as many pages."""
    prompt_pages = tokens // BLOCK_SIZE
    prompt = slots_in_runs(tokens - SINGLE, prompt_pages, BLOCK_SIZE, generator)
    slots = single_slots(SINGLE, generator)
    single = torch.where(slots >= 0, slots + prompt_pages * BLOCK_SIZE, slots)
    return torch.cat([single[:33], prompt, single[33:]])


def on(device: str, tensor: Tensor) -> Tensor:
    """With all of its storage, and the same strides."""
    elems = tensor.untyped_storage().nbytes() // tensor.element_size()
    storage = tensor.as_strided([elems], [1], 0).to(device, copy=True)
    return storage.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def writes_the_bytes_of_the_cpu(
    device: str, writer: Writer, kind: str, rows: Caches, caches: Caches, slots: Tensor
) -> bool:
    results = []
    for place in ("cpu", device):
        scales = (torch.tensor(scale, device=place) for scale in (0.37, 2.6))
        there = [on(place, tensor) for tensor in (*rows, *caches)]
        writer.operator(*there, slots.to(place), kind, *scales)
        results.append([byte_view(on("cpu", cache)) for cache in there[2:]])
    return all(map(torch.equal, *results))
