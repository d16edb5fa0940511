"""Run in a child process per SIMD level: checks attention there, and prints what it computed.

The last line is `<level> <digest>`: a digest of what merge_attn_states gives, whose bytes do not
depend on the level.
"""

from __future__ import annotations

import hashlib

import torch

import kvops
from attention.calls import assert_matches_reference, make
from attention.inputs import Problem
from cases.merge_attn_states import CASE as MERGE
from cases.paged_attention_v1 import PROBLEMS


def check_paged_attention() -> None:
    for problem in PROBLEMS.values():
        if problem.num_heads > 0:
            assert_matches_reference(make(problem))
    for group in range(1, 10):
        for block_size in (8, 16, 24, 48):
            for cache in ("auto", "fp8", "fp8_e5m2"):
                for dtype in (torch.float32, torch.float16, torch.bfloat16):
                    problem = Problem(
                        (block_size + 5, 1),
                        num_heads=group,
                        num_kv_heads=1,
                        head_size=24,
                        block_size=block_size,
                        dtype=dtype,
                        kv_cache_dtype=cache,
                        x=None if cache == "auto" else 8,
                    )
                    assert_matches_reference(make(problem))


def digest_of_merging() -> str:
    digest = hashlib.sha256()
    for sample in MERGE.samples:
        args = sample.make(torch.device("cpu"), torch.Generator().manual_seed(0))
        kvops.merge_attn_states(**args)
        for name in MERGE.outputs:
            if args[name] is not None:
                digest.update(args[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    check_paged_attention()
    print(kvops.info()["simd"], digest_of_merging())
