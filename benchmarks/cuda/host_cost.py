"""Host cost of one call on an idle GPU, beside `torch.neg(x, out=y)`.

    python benchmarks/cuda/host_cost.py

Time from Python to the launch: medians over short bursts with the GPU idle before each. All cases
take turns in every round, so that what the machine does meanwhile meets all of them. The ratio is
to `neg` of the same round: its median over the rounds, the lowest and the highest.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch

import kvops  # noqa: F401  (registers the operators)
from harness import DEVICE

CALLS, BURSTS, ROUNDS = 200, 5, 7
BASE = "neg"

Call = Callable[[], object]


def cases() -> dict[str, Call]:
    """One token, or one sequence of one page: as little work as possible."""
    bf16 = {"device": DEVICE, "dtype": torch.bfloat16}
    one = torch.ones(1, device=DEVICE)
    negated = torch.empty_like(one)
    key = torch.randn(1, 8, 128, **bf16)
    key_cache = torch.zeros(4, 8, 16, 16, 8, **bf16)
    value_cache = torch.zeros(4, 8, 128, 16, **bf16)
    flash_cache = torch.zeros(4, 16, 8, 128, **bf16)
    slots = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    kv_c, k_pe, mla_cache = (torch.zeros(*s, **bf16) for s in ((1, 512), (1, 64), (4, 16, 576)))
    query = torch.randn(1, 32, 128, **bf16)
    out = torch.empty_like(query)
    table = torch.zeros(1, 1, dtype=torch.int32, device=DEVICE)
    lens = torch.full((1,), 16, dtype=torch.int32, device=DEVICE)
    attention = (query, key_cache, value_cache, 8, 128**-0.5, table, lens, 16, 16)
    rest = (None, "auto", one, one, 0, 0, 0, 0, 0)
    sums = torch.empty(1, 32, 1, device=DEVICE)
    partial = torch.empty(1, 32, 1, 128, **bf16)
    lse = torch.zeros(32, 1, device=DEVICE)
    gathered = torch.empty(16, 576, **bf16)
    starts = torch.tensor([0, 16], dtype=torch.int32, device=DEVICE)
    src, dst = (torch.tensor([t.data_ptr()]) for t in (key_cache, value_cache))
    size = torch.tensor([4096])
    cache_ops, attention_ops = torch.ops._C_cache_ops, torch.ops._C
    reshape = cache_ops.reshape_and_cache.default
    flash = cache_ops.reshape_and_cache_flash.default
    mla = cache_ops.concat_and_cache_mla.default
    gather = cache_ops.cp_gather_cache.default
    swap = cache_ops.swap_blocks_batch.default
    merge = attention_ops.merge_attn_states.default
    v1, v2 = attention_ops.paged_attention_v1.default, attention_ops.paged_attention_v2.default
    return {
        BASE: lambda: torch.neg(one, out=negated),
        "reshape_and_cache": lambda: reshape(
            key, key, key_cache, value_cache, slots, "auto", one, one
        ),
        "reshape_and_cache_flash": lambda: flash(
            key, key, flash_cache, flash_cache, slots, "auto", one, one
        ),
        "concat_and_cache_mla": lambda: mla(kv_c, k_pe, mla_cache, slots, "auto", one),
        "cp_gather_cache": lambda: gather(mla_cache, gathered, table, starts, 1, None),
        "merge_attn_states": lambda: merge(out, None, query, lse, query, lse, None),
        "paged_attention_v1": lambda: v1(out, *attention, *rest),
        "paged_attention_v2": lambda: v2(out, sums, sums, partial, *attention, *rest),
        "swap_blocks_batch": lambda: swap(src, dst, size),
    }


def microseconds(run: Call) -> float:
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
    calls = cases()
    for run in calls.values():
        run()
    gc.disable()
    rounds = [{name: microseconds(run) for name, run in calls.items()} for _ in range(ROUNDS)]
    print(f"{'':24} {'us':>6} {'ratio':>6}  lowest to highest")
    for name in calls:
        ratios = [times[name] / times[BASE] for times in rounds]
        us = statistics.median(times[name] for times in rounds)
        print(
            f"{name:24} {us:6.2f} {statistics.median(ratios):6.2f}"
            f"  {min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
