"""Copies at random between pools on a GPU and of all kinds of host memory, and work around them.

Work before a call is slow and makes what the call reads or is to overwrite; work after it destroys
what it read. A copy that overtakes the one, or is overtaken by the other, shows in the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest
import torch
from torch import Tensor

from gpu.calls import SLEEP_CYCLES

PATHS = ("auto", "kernel", "batch", "single")
STREAMS = {"default": torch.cuda.default_stream, "side": torch.cuda.Stream}
DIRECTIONS = {
    "host-to-device": ("pinned", "cuda"),
    "device-to-host": ("cuda", "pinned"),
    "within-device": ("cuda", "cuda"),
    "pageable-to-device": ("cpu", "cuda"),
    "device-to-pageable": ("cuda", "cpu"),
}
PINNED = {name: ends for name, ends in DIRECTIONS.items() if "cpu" not in ends}
every_path = pytest.mark.parametrize("path", PATHS)
every_stream = pytest.mark.parametrize("make_stream", STREAMS.values(), ids=STREAMS)
every_direction = pytest.mark.parametrize("ends", DIRECTIONS.values(), ids=DIRECTIONS)
pinned_directions = pytest.mark.parametrize("ends", PINNED.values(), ids=PINNED)


def pool(where: str, size_bytes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randint(0, 256, [size_bytes], dtype=torch.uint8, generator=generator)
    return memory.pin_memory() if where == "pinned" else memory.to(where)


class Plan:
    """Copies of random sizes and places; targets do not overlap."""

    def __init__(self, seed: int, copies: int, sizes: Callable[[Random], int]) -> None:
        random = Random(seed)
        self.rows: list[tuple[int, int, int]] = []
        end = 0
        sources = []
        for _ in range(copies):
            size = sizes(random)
            end += random.choice([0, 0, 1, 5, 16])
            sources.append((end, size))
            end += size
        self.total_bytes = end + 64
        start = 0
        for source, size in random.sample(sources, copies):
            self.rows.append((source, start, size))
            start += size + random.choice([0, 0, 3])
        self.total_bytes = max(self.total_bytes, start)

    def pools(self, ends: tuple[str, str]) -> tuple[Tensor, Tensor]:
        return pool(ends[0], self.total_bytes, 0), pool(ends[1], self.total_bytes, 1)

    def tables(self, src: Tensor, dst: Tensor) -> list[Tensor]:
        offsets = torch.tensor(self.rows, dtype=torch.int64).view(-1, 3)
        starts = src.data_ptr() + offsets[:, 0], dst.data_ptr() + offsets[:, 1]
        return [*starts, offsets[:, 2].contiguous()]

    def expected(self, src: Tensor, dst: Tensor) -> Tensor:
        src, result = src.cpu(), dst.cpu().clone()
        for source, target, size in self.rows:
            result[target : target + size] = src[source : source + size]
        return result


SMALL = Plan(0, 150, lambda r: r.choice([1, 16, 37, 512, 4096, r.randrange(1, 9000)]))
EQUAL = Plan(1, 700, lambda r: 4096)
LARGE = Plan(2, 5, lambda r: r.randrange(1 << 20, 3 << 20))
MANY = Plan(3, 20_000, lambda r: r.randrange(1, 64))
# The kernel takes some of these, the driver all others.
LED = Plan(4, 600, lambda r: 41 << 10)
PLANS = {"small": SMALL, "equal": EQUAL, "large": LARGE, "many": MANY, "led": LED}


@contextmanager
def filled_late(*tensors: Tensor) -> Iterator[None]:
    """Device tensors hold something else until slow work of the current stream is done."""
    contents = [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.bitwise_not_()
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    for tensor, content in zip(tensors, contents, strict=True):
        tensor.copy_(content)
    yield
