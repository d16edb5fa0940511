"""Host cost of one call on an idle GPU: `reshape_and_cache` beside `torch.neg(x, out=y)`.

    python benchmarks/cuda/host_cost.py

Time from Python to the launch, medians of short bursts with the GPU idle before each; three rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

import kvops  # noqa: F401  (registers the operators)
from harness import DEVICE

CALLS, BURSTS = 200, 15


def microseconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(BURSTS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            run()
        times.append((time.perf_counter() - start) / CALLS * 1e6)
    torch.cuda.synchronize()
    return statistics.median(times)


def main() -> None:
    key = torch.randn(1, 8, 128, device=DEVICE, dtype=torch.bfloat16)
    key_cache = torch.zeros(4, 8, 16, 16, 8, device=DEVICE, dtype=torch.bfloat16)
    value_cache = torch.zeros(4, 8, 128, 16, device=DEVICE, dtype=torch.bfloat16)
    slots = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    one = torch.ones(1, device=DEVICE)
    out = torch.empty_like(one)
    write = torch.ops._C_cache_ops.reshape_and_cache.default
    for _ in range(3):
        ours = microseconds(
            lambda: write(key, key, key_cache, value_cache, slots, "auto", one, one)
        )
        neg = microseconds(lambda: torch.neg(one, out=out))
        print(f"reshape_and_cache {ours:.2f} us, neg {neg:.2f} us, ratio {ours / neg:.2f}")


if __name__ == "__main__":
    main()
