"""Random plans, by content: mixed directions, 1 byte to 8 MiB, 1 to 60,000 blocks.

Also under capture, and from several threads and streams at once.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA
from swap.gpu_plans import PATHS, pool

pytestmark = pytest.mark.parametrize("device", CUDA)

POOL_BYTES = 48 << 20
KINDS = ("cuda", "pinned", "cpu")
SEED = int(os.environ["KVOPS_SEED"])


class MixedPlan:
    """Copies from every kind of memory to every kind; targets do not overlap."""

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS) -> None:
        random = Random(seed)
        self.kinds = kinds
        most = random.choice([1, 8, 8 << 10, 64 << 10, 8 << 20])
        least = random.choice([1, most])
        unit = random.choice([1, 4, 16, 512])
        blocks = random.choice([1, 2, 127, 130, 700, 5000, 60_000])
        regular = random.random() < 0.3  # at constant distances
        place = dict.fromkeys(kinds, 0)
        self.rows: list[tuple[str, int, str, int, int]] = []
        ends = random.choice(kinds), random.choice(kinds)
        for i in range(blocks):
            size = max(random.randrange(least, most + 1) // unit * unit, 1)
            if not regular and random.random() < 0.3:
                ends = random.choice(kinds), random.choice(kinds)
            start = place[ends[1]]
            gap = size if regular else random.choice([0, 0, unit, 3])
            if start + size > POOL_BYTES:
                break
            place[ends[1]] = start + size + gap
            source = (
                i * 2 * size % (POOL_BYTES - size + 1)
                if regular
                else random.randrange((POOL_BYTES - size) // unit + 1) * unit
            )
            self.rows.append((ends[0], source, ends[1], start, size))

    def pools(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        make = [{kind: pool(kind, POOL_BYTES, seed + i) for kind in self.kinds} for i in (0, 1)]
        return make[0], make[1]

    def tables(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> list[Tensor]:
        src = {kind: memory.data_ptr() for kind, memory in sources.items()}
        dst = {kind: memory.data_ptr() for kind, memory in targets.items()}
        rows = [(src[a] + i, dst[b] + j, size) for a, i, b, j, size in self.rows]
        return list(torch.tensor(rows, dtype=torch.int64).view(-1, 3).T.contiguous())

    def expected(self, sources: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        from_ = {kind: memory.cpu() for kind, memory in sources.items()}
        result = {kind: memory.cpu().clone() for kind, memory in targets.items()}
        for a, i, b, j, size in self.rows:
            result[b][j : j + size] = from_[a][i : i + size]
        return result


def plan_of_the_gpu(seed: int) -> MixedPlan:
    """With an address of the GPU: a call on host memory alone is done at once, by the CPU."""
    plans = (MixedPlan(seed + i, kinds=("cuda", "pinned")) for i in itertools.count(0, 1000))
    return next(plan for plan in plans if any("cuda" in row for row in plan.rows))


def check(targets: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for kind, memory in targets.items():
        assert torch.equal(memory.cpu(), expected[kind]), kind


@pytest.mark.parametrize("path", [*PATHS, "dma"])
@pytest.mark.parametrize("number", range(10))
def test_random_plans(number: int, path: str, device: str) -> None:
    plan = MixedPlan(SEED + number)
    sources, targets = plan.pools(number)
    expected = plan.expected(sources, targets)
    torch.cuda.synchronize()
    with kvops.swap.use_path(path, max_sms=1 + number % 3):
        kvops.swap_blocks_batch(*plan.tables(sources, targets))
    torch.cuda.synchronize()
    check(targets, expected)


@pytest.mark.parametrize("number", range(6))
def test_random_plans_captured(number: int, device: str) -> None:
    plan = plan_of_the_gpu(SEED + 100 + number)
    sources, targets = plan.pools(number)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kvops.swap_blocks_batch(*plan.tables(sources, targets))
    for seed in (1, 2):
        for i, kind in enumerate(sources):
            sources[kind].copy_(pool("cpu", POOL_BYTES, seed * 10 + i))
        expected = plan.expected(sources, targets)
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        check(targets, expected)


def test_threads_and_streams_at_once(device: str) -> None:
    plans = [MixedPlan(SEED + 200 + i, kinds=("cuda", "pinned")) for i in range(8)]
    jobs = [(plan, *plan.pools(i)) for i, plan in enumerate(plans)]
    expected = [plan.expected(*pools) for plan, *pools in jobs]
    torch.cuda.synchronize()

    def work(i: int) -> None:
        plan, sources, targets = jobs[i]
        stream = torch.cuda.default_stream() if i % 4 == 0 else torch.cuda.Stream()
        with torch.cuda.stream(stream), kvops.swap.use_path(["auto", "kernel", "dma"][i % 3]):
            for _ in range(3):
                kvops.swap_blocks_batch(*plan.tables(sources, targets))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    torch.cuda.synchronize()
    for (_, _, targets), content in zip(jobs, expected, strict=True):
        check(targets, content)


def test_one_stream_of_several_threads(device: str) -> None:
    """Launches of two calls may interleave on the stream; each call is whole all the same."""
    plan = MixedPlan(1)
    plan.rows = [("pinned", 8192 * i, "cuda", 4096 * (i * 7 % 3000), 4096) for i in range(3000)]
    jobs = [plan.pools(i) for i in range(4)]
    expected = [plan.expected(*pools) for pools in jobs]
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()

    def work(i: int) -> Tensor:
        with torch.cuda.stream(stream), kvops.swap.use_path("kernel"):
            kvops.swap_blocks_batch(*plan.tables(*jobs[i]))
            return jobs[i][1]["cuda"].clone()  # after the whole of this thread's swap

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(work, range(4)))
    torch.cuda.synchronize()
    for result, content in zip(results, expected, strict=True):
        assert torch.equal(result.cpu(), content["cuda"])
