"""Decodes every fp8 byte with many scales, to every dtype, and compares with the reference.

A program of its own: the SIMD level is chosen once per process. Prints the level.
"""

from __future__ import annotations

from itertools import product

import torch

import kvops
from kvops import reference

_SCALES = (1.0, 0.1, -3.7, 0.0, -0.0, 1e-44, 3e38, 2.0**-130, 448.0, float("inf"), float("nan"))
# All bytes, and a rest that no vector holds.
_WIDTH = 256 + 31


def _tables(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(rows, dtype=torch.int32)[None], torch.tensor([0, rows], dtype=torch.int32)


def check_dequantising() -> None:
    """gather_and_maybe_dequant_cache, all kinds and dtypes."""
    cache = (torch.arange(2 * _WIDTH) % 256).to(torch.uint8).view(2, 1, _WIDTH)
    block_table, cu_seq_lens = _tables(2)
    token_to_seq = torch.zeros(2, dtype=torch.int32)
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for kind, dtype, scale in product(("fp8", "fp8_e5m2"), dtypes, _SCALES):
        actual, expected = torch.zeros(2, 2, _WIDTH, dtype=dtype)
        for operator, dst in ((kvops, actual), (reference, expected)):
            operator.gather_and_maybe_dequant_cache(
                *(cache, dst, block_table, cu_seq_lens, token_to_seq, 2),
                *(kind, torch.tensor([scale]), None),
            )
        same = torch.equal(actual.view(torch.uint8), expected.view(torch.uint8))
        assert same, f"{kind} to {dtype}, scale {scale}"


def check_upconverting() -> None:
    """cp_gather_and_upconvert_fp8_kv_cache: every byte meets every scale in some tile."""
    cache = torch.empty(len(_SCALES), 1, 656, dtype=torch.uint8)
    cache[..., :512] = (torch.arange(512) * 3 % 256).to(torch.uint8)
    for row in range(len(_SCALES)):
        tiles = [_SCALES[(row + tile) % len(_SCALES)] for tile in range(4)]
        cache[row, 0, 512:528] = torch.tensor(tiles).view(torch.uint8)
    cache[..., 528:] = torch.randint(0, 256, (128,), dtype=torch.uint8)
    block_table, cu_seq_lens = _tables(len(_SCALES))
    actual, expected = torch.zeros(2, len(_SCALES), 576, dtype=torch.bfloat16)
    for operator, dst in ((kvops, actual), (reference, expected)):
        operator.cp_gather_and_upconvert_fp8_kv_cache(
            cache, dst, block_table, cu_seq_lens[1:], cu_seq_lens[:1], 1
        )
    assert torch.equal(actual.view(torch.uint8), expected.view(torch.uint8))


def main() -> None:
    check_dequantising()
    check_upconverting()
    print(kvops.info()["simd"])
