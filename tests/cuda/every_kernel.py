"""Calls every kernel of every operator, with small shapes, and compares with the reference.

    python tests/cuda/every_kernel.py [--device cpu]

Meant for compute-sanitizer (tools/gpu_check.py runs it), so every tensor has an allocation of its
own. Prints a line per operator; ends with an error if anything is wrong.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests/

import torch

from cache.writers import WRITERS
from gpu.gather_calls import gathers_of_any_tables
from gpu.plain_calls import device_of_script, plain_call, wait
from gpu.swap_calls import all_swaps
from gpu.writer_calls import (
    BLOCK_SIZE,
    single_pages,
    slots_around_a_prompt,
    writes_the_bytes_of_the_cpu,
)
from registry import OpCase
from support import CASES, assert_same_outcome, by_operator, guard, reference_outcome


def run(case: OpCase, device: str) -> int:
    """Every sample, as it is and at addresses that allow no wide access; how many calls."""
    for sample in case.samples:
        by_operator(plain_call(case, sample, device))
        wait(device)
        call = guard(case, plain_call(case, sample, device).args, misaligned=True)
        expected = reference_outcome(call)
        by_operator(call)
        wait(device)
        assert_same_outcome(call, expected)
    return 2 * len(case.samples)


def gathers_by_size(device: str) -> int:
    """Gathers choose their kernel by the number of rows and requests; how many choices."""
    choices = [(5, 300), (5, 9000), (80, 300), (80, 9000)]
    for choice in choices:
        results = [gathers_of_any_tables(*choice, 0.02, place) for place in ("cpu", device)]
        assert all(map(torch.equal, *results)), choice
    return len(choices)


def writers_by_size(device: str) -> int:
    """Cache writers choose theirs by the number of tokens; how many choices."""
    generator = torch.Generator().manual_seed(0)
    choices = list(product(WRITERS, ("auto", "fp8"), (100, 200, 300, 2200)))
    for writer, kind, tokens in choices:
        key, value = torch.randn([2, tokens, 8, 128], generator=generator).bfloat16()
        caches = writer.room((key, value), single_pages(tokens), BLOCK_SIZE, kind)
        slots = slots_around_a_prompt(tokens, generator)
        assert writes_the_bytes_of_the_cpu(device, writer, kind, (key, value), caches, slots), (
            writer.name,
            kind,
            tokens,
        )
    return len(choices)


def main() -> None:
    device = device_of_script(__doc__.splitlines()[0])
    for case in CASES.values():
        print(f"{case.name}: {run(case, device)} calls", flush=True)
    print(f"cache writers by size: {writers_by_size(device)} calls", flush=True)
    print(f"gathers by size: {gathers_by_size(device)} calls", flush=True)
    print(f"swaps of many blocks: {all_swaps(device)} calls", flush=True)


if __name__ == "__main__":
    main()
