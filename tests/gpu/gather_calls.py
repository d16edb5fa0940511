"""Every gather with the same tables, which may say anything; for tests of the CUDA kernels.

5 rows or 9000, 5 requests or 80: the sizes make CUDA choose among its kernels.
"""

from __future__ import annotations

import torch

import kvops
from gather.paged import poisoned, random_bits

_BLOCKS, _BLOCK_SIZE = 50, 3


def _any_values(
    size: list[int], limit: int, share: float, generator: torch.Generator
) -> torch.Tensor:
    """int32 in [0, limit), this share of them anything."""
    good = torch.randint(max(limit, 1), size, generator=generator)
    near = torch.randint(-3, limit + 4, size, generator=generator)
    far = torch.randint(-(2**31), 2**31, size, generator=generator)
    pick = torch.rand(size, generator=generator)
    return torch.where(pick < share / 2, near, torch.where(pick < share, far, good)).int()


def _gathers(rows: int, t: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What every gather makes of the tables."""
    outs: list[torch.Tensor] = []

    def dst(width: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        outs.append(poisoned([rows, width], dtype).to(t["rows"].device))
        return outs[-1]

    tables, requests = (t["blocks"], t["rows"]), len(t["blocks"])
    for starts in (None, t["starts"]):
        kvops.cp_gather_cache(t["narrow"], dst(128), *tables, requests, starts)
        kvops.cp_gather_cache(t["cache"], dst(288), *tables, requests, starts)
        for kind in ("auto", "fp8"):
            cache = t["cache"].view(torch.bfloat16) if kind == "auto" else t["cache"]
            out = dst(cache.shape[2], torch.bfloat16)
            rest = t["tokens"], rows, kind, t["scale"], starts
            kvops.gather_and_maybe_dequant_cache(cache, out, *tables, *rest)
    kvops.cp_gather_indexer_k_quant_cache(t["keys"], dst(128), dst(4), *tables)
    kvops.cp_gather_and_upconvert_fp8_kv_cache(
        t["entries"], dst(576, torch.bfloat16), t["blocks"], t["rows"], t["rows"], requests
    )
    return outs


def gathers_of_any_tables(
    requests: int, rows: int, share: float, device: str
) -> list[torch.Tensor]:
    """The bytes that gathers leave on the CPU or on a GPU; `share` of the tables' values is bad."""
    generator = torch.Generator().manual_seed(requests * rows)
    pages = 2 * rows // requests // _BLOCK_SIZE + 2
    bounds = _any_values([requests + 1], rows + 1, share, generator)
    owners = torch.searchsorted(bounds.sort().values, torch.arange(rows), right=True) - 1
    wrong = torch.rand(rows, generator=generator) < share
    t = {
        "narrow": random_bits([_BLOCKS, _BLOCK_SIZE, 128], torch.uint8, generator),
        "cache": random_bits([_BLOCKS, _BLOCK_SIZE, 288], torch.uint8, generator),
        "keys": random_bits([_BLOCKS, 4, 132], torch.uint8, generator),
        "entries": random_bits([_BLOCKS, _BLOCK_SIZE, 656], torch.uint8, generator),
        "blocks": _any_values([requests, pages], _BLOCKS, share, generator),
        "rows": bounds if share == 0.5 else bounds.sort().values,
        "starts": _any_values([requests], pages * _BLOCK_SIZE, share, generator),
        "tokens": torch.where(wrong, _any_values([rows], requests, 1.0, generator), owners).int(),
        "scale": torch.tensor([0.3]),
    }
    outs = _gathers(rows, {name: tensor.to(device) for name, tensor in t.items()})
    return [out.cpu().view(torch.uint8) for out in outs]
