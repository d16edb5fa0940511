"""What a swap does to the work beside it, and that work to the swap.

Called by swap.py. Two runs for each pair: one in which swaps go on for longer than the work, which
shows how much slower the work gets, and one in which the work goes on for longer than the swaps,
which shows what is left of their rate. Both streams start together, behind a sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

import kvops
from harness import DEVICE

# Blocks, their bytes, and what is asked for.
SWAPS = (
    (8192, 4 << 10, "auto"),
    (2048, 32 << 10, "auto"),
    (2048, 32 << 10, "dma"),
    (1024, 64 << 10, "auto"),
)
WORK_SECONDS = 12e-3
ROUNDS = range(3)  # a host that is held up shows in one of them
SLEEP_CYCLES = 6_000_000  # 3 ms: the host has queued everything by then

Work = Callable[[], object]


@dataclass(frozen=True)
class Beside:
    """Seconds of one step of work alone and beside swaps; bytes a second of swaps likewise."""

    work: str
    name: str
    direction: str
    wish: str
    path: str
    step_alone: float
    step_beside: float
    rate_alone: float
    rate_beside: float


def measure_beside() -> list[Beside]:
    rows = []
    for name, work in (("decode", decode_step()), ("matmul", matrix_product())):
        step = together(work, 5, None, 0)[0] / 5
        steps = max(3, round(WORK_SECONDS / step))
        alone = together(work, steps, None, 0)[0] / steps
        for blocks, size, wish in SWAPS:
            for direction in ("H2D", "D2H"):
                with kvops.swap.use_path(wish):
                    swap = make_swap(direction, blocks, size)
                    once = together(None, 0, swap, 3)[1] / 3
                    # The swap may get slower, too.
                    calls = max(2, round(1.5 * steps * alone / once))
                    slowed = median(together(work, steps, swap, calls)[0] for _ in ROUNDS) / steps
                    few = max(1, calls // 3)
                    beside = median(together(work, 2 * steps, swap, few)[1] for _ in ROUNDS) / few
                label = f"{blocks} x {size >> 10} KiB"
                path = kvops.swap.last_path() or ""
                rates = blocks * size / once, blocks * size / beside
                rows.append(Beside(name, label, direction, wish, path, alone, slowed, *rates))
    return rows


def together(work: Work | None, steps: int, swap: Work | None, calls: int) -> tuple[float, float]:
    """Seconds of all steps and of all calls, each on a stream of its own; 0 for none."""
    gate = torch.cuda.Stream()
    spans = []
    with torch.cuda.stream(gate):
        torch.cuda._sleep(SLEEP_CYCLES)
        opened = gate.record_event()
    for run, count in ((work, steps), (swap, calls)):
        stream = torch.cuda.Stream()
        stream.wait_event(opened)
        span = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        with torch.cuda.stream(stream):
            span[0].record()
            for _ in range(count if run else 0):
                run()
            span[1].record()
        spans.append(span)
    torch.cuda.synchronize()
    taken = [span[0].elapsed_time(span[1]) * 1e-3 for span in spans]
    return taken[0], taken[1]


def decode_step() -> Work:
    """One layer's attention of 64 sequences of 4096 tokens: 1 GiB of keys and values."""
    sequences, length, block, heads, kv_heads, size = 64, 4096, 16, 32, 8, 128
    blocks = sequences * length // block
    make = {"dtype": torch.bfloat16, "device": DEVICE}
    key = torch.randn(blocks, kv_heads, size // 8, block, 8, **make)
    value = torch.randn(blocks, kv_heads, size, block, **make)
    query = torch.randn(sequences, heads, size, **make)
    out = torch.empty_like(query)
    table = torch.randperm(blocks, device=DEVICE, dtype=torch.int32).view(sequences, -1)
    lengths = torch.full((sequences,), length, device=DEVICE, dtype=torch.int32)
    partitions = length // 512
    sums = torch.empty(sequences, heads, partitions, device=DEVICE)
    most = torch.empty_like(sums)
    scratch = torch.empty(sequences, heads, partitions, size, **make)
    one = torch.ones(1, device=DEVICE)
    return lambda: kvops.paged_attention_v2(
        *(out, sums, most, scratch, query, key, value, kv_heads, size**-0.5, table, lengths),
        *(block, length, None, "auto", one, one),
    )


def matrix_product() -> Work:
    size = 8192
    make = {"dtype": torch.bfloat16, "device": DEVICE}
    a, b = torch.randn(size, size, **make), torch.randn(size, size, **make)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def make_swap(direction: str, blocks: int, size: int) -> Work:
    host = torch.empty(2 * blocks * size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty_like(host, device=DEVICE)
    src, dst = (host, device) if direction == "H2D" else (device, host)
    tables = [
        *(pool.data_ptr() + size * torch.randperm(2 * blocks)[:blocks] for pool in (src, dst)),
        torch.full((blocks,), size),
    ]
    # The pools live as long as what reads their addresses.
    return lambda pools=(src, dst): kvops.swap_blocks_batch(*tables, direction == "H2D")
