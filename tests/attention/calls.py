"""Calls of paged attention in tests: through kvops, and through the reference in two precisions."""

from __future__ import annotations

import torch
from torch import Tensor

import kvops
from attention.inputs import Problem, compare
from kvops import reference
from registry import Args


def make(problem: Problem, device: str = "cpu", seed: int = 0) -> Args:
    return problem.make(device, torch.Generator().manual_seed(seed))


def attend(args: Args) -> Tensor:
    """`out` of version 1, a copy; poisoned before."""
    args["out"].fill_(torch.nan)
    kvops.paged_attention_v1(**args)
    return args["out"].clone()


def reference_out(args: Args, dtype: torch.dtype) -> Tensor:
    """What the reference computes in `dtype`; rounded to the query's dtype only for float32."""
    on_cpu = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in args.items()}
    result_dtype = torch.float64 if dtype == torch.float64 else args["query"].dtype
    out = torch.full(args["query"].shape, torch.nan, dtype=result_dtype)
    reference.paged_attention_v1(**on_cpu | {"out": out}, dtype=dtype)
    return out


def assert_matches_reference(args: Args) -> None:
    """kvops agrees with the reference within the rounding that recorded calls allow."""
    compare("out", attend(args).cpu(), reference_out(args, torch.float32), args)


def same_bytes(left: Tensor, right: Tensor) -> bool:
    left, right = left.cpu().contiguous(), right.cpu().contiguous()
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


def tokens_of(cache: Tensor) -> Tensor:
    """A view of keys or values as [num_blocks, block_size, num_kv_heads, head_size (or / x, x)]."""
    return cache.permute(0, 3, 1, 2) if cache.dim() == 4 else cache.permute(0, 3, 1, 2, 4)


def repaged(args: Args, block_size: int) -> Args:
    """The same tokens in pages of another size, in order."""
    tables, seq_lens = args["block_tables"], args["seq_lens"].tolist()
    needed = [-(-length // block_size) for length in seq_lens]
    new = torch.arange(sum(needed), dtype=torch.int32)
    new_tables = torch.zeros(len(needed), max(needed), dtype=torch.int32)
    for row, blocks in zip(new_tables, new.split(needed), strict=True):
        row[: len(blocks)] = blocks
    changed = {"block_tables": new_tables, "block_size": block_size}
    for name in ("key_cache", "value_cache"):
        old = args[name]
        shape = [block_size if size == args["block_size"] and i == 3 else size
                 for i, size in enumerate(old.shape)]  # fmt: skip
        cache = torch.full([sum(needed), *shape[1:]], torch.nan, dtype=old.dtype)
        for row, new_row, length in zip(tables, new_tables, seq_lens, strict=True):
            position = torch.arange(length)
            source = tokens_of(old)[row[position // args["block_size"]].long(),
                                    position % args["block_size"]]  # fmt: skip
            tokens_of(cache)[new_row[position // block_size].long(), position % block_size] = source
        changed[name] = cache
    return args | changed
