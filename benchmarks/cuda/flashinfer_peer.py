"""Paged decode by FlashInfer: every way in which it offers the batches of attention.py.

FlashInfer keeps pages as [block, token, head, dim] (NHD) or [block, head, token, dim] (HND); both
are made from kvops' pages, so all read the same keys and values in the same order of pages. What
FlashInfer plans on the host is done before a call is handed out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from attention import Batch, Case
from harness import DEVICE

WORKSPACE_BYTES = 512 << 20
LAYOUTS = ("NHD", "HND")

Call = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Way:
    """`plan` returns the call; it raises where FlashInfer cannot do the batch in this way."""

    name: str
    plan: Callable[[], Call]


def comparable(case: Case) -> bool:
    """Where both do the same: one dtype, head size and page are enough to judge by."""
    usual = (case.dtype, case.head_size, case.page) == (torch.bfloat16, 128, 16)
    return usual and case.version == 2 and not case.alibi and case.max_seq_len is None


def ways(batch: Batch) -> Iterator[Way]:
    for layout in LAYOUTS:
        pages = functools.cache(functools.partial(relaid, batch, layout))
        for name, tensor_cores in (("CUDA cores", False), ("tensor cores", True)):
            plan = functools.partial(planned, batch, pages, layout, tensor_cores)
            yield Way(f"{name}, {layout}", plan)
        yield Way(f"XQA, {layout}", functools.partial(xqa, batch, pages, layout))


def relaid(batch: Batch, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values as FlashInfer's pages."""
    order = (0, 3, 1, 2) if layout == "NHD" else (0, 1, 3, 2)
    keys = batch.keys.transpose(3, 4).flatten(2, 3)  # [block, head, dim, token], as the values
    dtype = torch.float8_e4m3fn if batch.case.kind == "fp8" else batch.case.dtype
    return tuple(part.permute(order).contiguous().view(dtype) for part in (keys, batch.values))


def planned(batch: Batch, pages: Callable, layout: str, tensor_cores: bool) -> Call:
    """The wrapper that engines use; it splits sequences by lengths that the host knows."""
    from flashinfer import BatchDecodeWithPagedKVCacheWrapper

    case, cache = batch.case, pages()
    blocks = [-(-length // case.page) for length in case.lengths]
    indices = torch.cat([table[:count] for table, count in zip(batch.tables, blocks, strict=True)])
    starts = torch.tensor([0, *blocks]).cumsum(0, dtype=torch.int32)
    last = torch.tensor([(length - 1) % case.page + 1 for length in case.lengths])
    wrapper = BatchDecodeWithPagedKVCacheWrapper(
        workspace(), layout, use_tensor_cores=tensor_cores, backend="fa2"
    )
    wrapper.plan(
        *(starts, indices, last.int(), case.heads, case.kv_heads, case.head_size, case.page),
        q_data_type=case.dtype,
        kv_data_type=cache[0].dtype,
        sm_scale=case.head_size**-0.5,
    )
    out = torch.empty_like(batch.query)
    return lambda: wrapper.run(batch.query, cache, out=out)


def xqa(batch: Batch, pages: Callable, layout: str) -> Call:
    """The kernel from TensorRT-LLM, which plans nothing."""
    from flashinfer.decode import xqa_batch_decode_with_kv_cache

    cache, out = pages(), torch.empty_like(batch.query)
    # It expects zeros in its semaphores, and leaves zeros there.
    scratch = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=DEVICE)
    lengths = batch.lengths.view(torch.uint32)
    scales = batch.case.head_size**-0.5, 1.0
    return lambda: xqa_batch_decode_with_kv_cache(
        *(batch.query, cache, scratch, batch.tables, lengths, max(batch.case.lengths), *scales),
        out=out,
        kv_layout=layout,
    )


@functools.cache
def workspace() -> torch.Tensor:
    return torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=DEVICE)
