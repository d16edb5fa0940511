"""Cases of paged_attention_v1: dtypes, layouts, head groups, masks, strides, nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attention.inputs import BlockSparse, Problem, compare
from registry import Args, OpCase, Refusal, Sample

_BASE = Problem((37, 0, 16, 90))
_SPARSE = BlockSparse(0, 1, 3, 32, 1)

# Kinds of arguments (dtypes, strings, None) are spread: torch.compile meets all samples of the
# first kind with one function, and gives up after 8 versions of it.
PROBLEMS = {
    "float32": _BASE,
    "float16": _BASE.change(dtype=torch.float16, num_heads=6),
    "bfloat16": _BASE.change(dtype=torch.bfloat16, num_heads=8, num_kv_heads=1),
    "float32-fp8": _BASE.change(kv_cache_dtype="fp8", k_scale=0.3, v_scale=1.7),
    "float16-fp8_e5m2": _BASE.change(dtype=torch.float16, kv_cache_dtype="fp8_e5m2", v_scale=0.4),
    "bfloat16-fp8_e4m3": _BASE.change(
        dtype=torch.bfloat16, kv_cache_dtype="fp8_e4m3", cache_dtype=torch.float8_e4m3fn
    ),
    "bfloat16-fp8_e5m2-float8": _BASE.change(
        dtype=torch.bfloat16, kv_cache_dtype="fp8_e5m2", cache_dtype=torch.float8_e5m2
    ),
    "alibi": _BASE.change(alibi=True),
    "several-partitions": _BASE.change(seq_lens=(1025, 512, 1, 513)),
    "head-size-120": _BASE.change(head_size=120, dtype=torch.bfloat16),
    "head-size-120-fp8": _BASE.change(head_size=120, kv_cache_dtype="fp8", x=8, num_heads=2),
    "block-size-24": _BASE.change(block_size=24, seq_lens=(700, 24, 25), dtype=torch.float16),
    "block-size-256": _BASE.change(block_size=256, seq_lens=(700, 24, 256), dtype=torch.bfloat16),
    "one-token": _BASE.change(seq_lens=(1,), num_heads=1, num_kv_heads=1, head_size=8),
    "many-heads": _BASE.change(num_heads=40, seq_lens=(20,), dtype=torch.bfloat16),
    "sparse": _BASE.change(sparse=_SPARSE, seq_lens=(300, 33), dtype=torch.float16),
    "sparse-alibi-kv-heads": _BASE.change(
        sparse=BlockSparse(1, 1, 4, 16, -2), seq_lens=(300, 33), alibi=True, dtype=torch.float16
    ),
    "strided": _BASE.change(strided=True, dtype=torch.bfloat16),
    "strided-fp8": _BASE.change(strided=True, kv_cache_dtype="fp8"),
    "max_seq_len-beyond-the-table": _BASE.change(max_seq_len=5000, dtype=torch.bfloat16),
    "no-tokens": _BASE.change(seq_lens=(0, 0), dtype=torch.float16),
    "no-sequences": _BASE.change(seq_lens=()),
    "no-heads": _BASE.change(num_heads=0, dtype=torch.bfloat16),
}


def assign(**values: Any) -> Callable[[Args], None]:
    """An edit that replaces arguments."""
    return lambda args: args.update(values)


def assign_ones(name: str, size: int, dtype: torch.dtype = torch.float32) -> Callable[[Args], None]:
    """An edit that replaces a tensor by ones on the device of the others."""

    def edit(args: Args) -> None:
        args[name] = torch.ones(size, dtype=dtype, device=args["seq_lens"].device)

    return edit


def replace_by(name: str, change: Callable[[Any], Any]) -> Callable[[Args], None]:
    """An edit that replaces an argument by a function of itself."""

    def edit(args: Args) -> None:
        args[name] = change(args[name])

    return edit


def _innermost(dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same elements with those of `dim` next to each other."""
    return lambda t: t.transpose(dim, -1).contiguous().transpose(dim, -1)


def _sparse(**changes: int) -> Callable[[Args], None]:
    return assign(**(vars(_SPARSE) | changes))


REFUSALS = (
    Refusal("query rank", replace_by("query", lambda t: t[0]), "query must have 3 dimensions"),
    Refusal(
        "head size",
        replace_by("query", lambda t: t[..., :30]),
        "query must have a head size that is a multiple of 8 from 8 to 256, got 30",
    ),
    Refusal(
        "head size too large",
        replace_by("query", lambda t: t.repeat(1, 1, 9)),
        "query must have a head size .* got 288",
    ),
    Refusal("query dtype", replace_by("query", torch.Tensor.double), "query must have dtype"),
    Refusal("query stride", replace_by("query", _innermost(1)), "query must have stride 1"),
    Refusal("out shape", replace_by("out", lambda t: t[1:]), "out must have shape"),
    Refusal("out dtype", replace_by("out", torch.Tensor.half), "out must have dtype float32"),
    Refusal("out stride", replace_by("out", _innermost(0)), "out must have stride 1"),
    Refusal("key rank", replace_by("key_cache", lambda t: t[0]), "key_cache must have 5 dim"),
    Refusal("key dtype", replace_by("key_cache", torch.Tensor.half), "key_cache must have dtype"),
    Refusal(
        "x",
        replace_by("key_cache", lambda t: t.flatten(3).unflatten(3, (32, 2))),
        "key_cache must have x = 4 elements in dimension 4",
    ),
    Refusal(
        "x does not divide the head size",
        lambda args: args.update(
            {name: args[name][..., :24] for name in ("query", "out")},
            value_cache=args["value_cache"][:, :, :24],
        ),
        "key_cache must have x = 16 or 8 elements .* must divide the head size 24",
        sample="float32-fp8",
    ),
    Refusal("key chunks", replace_by("key_cache", lambda t: t[:, :, 1:]), "key_cache must have sh"),
    Refusal("key layout", replace_by("key_cache", _innermost(3)), "key_cache must have stride 1"),
    Refusal(
        "value dtype", replace_by("value_cache", torch.Tensor.half), "value_cache must have dtype"
    ),
    Refusal(
        "value blocks", replace_by("value_cache", lambda t: t[1:]), "value_cache must have shape"
    ),
    Refusal(
        "value layout", replace_by("value_cache", _innermost(2)), "value_cache must have stride 1"
    ),
    Refusal("fp8 kind", assign(kv_cache_dtype="fp8"), "key_cache must have dtype one of uint8"),
    Refusal(
        "other fp8 dtype",
        assign(kv_cache_dtype="fp8_e5m2"),
        "key_cache must have dtype one of uint8, float8_e5m2, got float8_e4m3fn",
        sample="bfloat16-fp8_e4m3",
    ),
    Refusal("unknown kind", assign(kv_cache_dtype="int8"), "kv_cache_dtype must be one of auto"),
    Refusal("MLA kind", assign(kv_cache_dtype="fp8_ds_mla"), "kv_cache_dtype must be one of"),
    Refusal("KV heads", assign(num_kv_heads=1), "num_kv_heads must be key_cache.size.1., 2, got 1"),
    Refusal(
        "head groups",
        lambda args: args.update({name: args[name][:, :3] for name in ("query", "out")}),
        "num_kv_heads must divide the number of query heads 3, got 2",
    ),
    Refusal("block size", assign(block_size=8), "block_size must be key_cache.size.3., 16, got 8"),
    Refusal(
        "block size step",
        lambda args: args.update(
            key_cache=args["key_cache"][:, :, :, :12].contiguous(),
            value_cache=args["value_cache"][..., :12].contiguous(),
            block_size=12,
        ),
        "key_cache must have a block size that is a multiple of 8 from 8 to 256, got 12",
    ),
    Refusal("tables", replace_by("block_tables", lambda t: t[1:]), "block_tables must have shape"),
    Refusal(
        "table dtype", replace_by("block_tables", torch.Tensor.long), "block_tables must have dtype"
    ),
    Refusal(
        "table stride", replace_by("block_tables", _innermost(0)), "block_tables must have stride"
    ),
    Refusal("lengths", replace_by("seq_lens", lambda t: t[1:]), "seq_lens must have shape"),
    Refusal(
        "length dtype", replace_by("seq_lens", torch.Tensor.long), "seq_lens must have dtype int32"
    ),
    Refusal(
        "length stride",
        replace_by("seq_lens", lambda t: t.repeat_interleave(2)[::2]),
        "seq_lens must have stride 1",
    ),
    Refusal("max_seq_len", assign(max_seq_len=-1), "max_seq_len must not be negative, got -1"),
    Refusal("slopes", assign_ones("alibi_slopes", 3), "alibi_slopes must have shape .4."),
    Refusal(
        "slope dtype",
        assign_ones("alibi_slopes", 4, torch.float64),
        "alibi_slopes must have dtype float32, got float64",
    ),
    Refusal(
        "scale dtype",
        assign_ones("k_scale", 1, torch.float64),
        "k_scale must have dtype float32",
        sample="float32-fp8",
    ),
    Refusal(
        "scales per head",
        assign_ones("v_scale", 2),
        "v_scale must have 1 element",
        sample="float32-fp8",
    ),
    Refusal("pattern block", _sparse(blocksparse_block_size=0), "blocksparse_block_size must be"),
    Refusal("tp_rank", _sparse(tp_rank=-1), "tp_rank must be an int32 that is at least 0, got -1"),
    Refusal("huge tp_rank", _sparse(tp_rank=2**31), "tp_rank must be an int32"),
    Refusal("huge step", _sparse(blocksparse_head_sliding_step=2**40), "blocksparse_head_sliding"),
    Refusal("huge local", _sparse(blocksparse_local_blocks=-(2**40)), "blocksparse_local_blocks"),
    Refusal("huge stride", _sparse(blocksparse_vert_stride=2**31), "blocksparse_vert_stride must"),
)

HOSTILE = {
    "block_tables": lambda args: args["key_cache"].size(0),
    "seq_lens": lambda args: (
        min(args["max_seq_len"], args["block_tables"].size(1) * args["block_size"]) + 1
    ),
}

CASE = OpCase(
    name="paged_attention_v1",
    samples=tuple(Sample(name, problem.make) for name, problem in PROBLEMS.items()),
    refusals=REFUSALS,
    outputs=("out",),
    compare=compare,
    hostile=HOSTILE,
)
