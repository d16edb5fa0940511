"""Cases of reshape_and_cache: every dtype and kind, odd sizes and x, fused inputs, page gaps."""

from __future__ import annotations

import torch
from torch import Tensor

from cache.inputs import (
    WRITER_DTYPES,
    awkward,
    cache_dtype,
    change,
    every_second,
    freed,
    heads_of,
    innermost,
    padded_pages,
    poisoned,
    scattered_slots,
    slots_in_runs,
)
from registry import Args, OpCase, Refusal, Sample


def sample(
    kind: str,
    dtype: torch.dtype,
    tokens: int = 37,
    heads: int = 3,
    head_size: int = 64,
    block_size: int = 16,
    *,
    x: int | None = None,
    views: bool = False,
    scattered: bool = False,
    stored: torch.dtype | None = None,
    interleaved_v: bool | None = None,
) -> Sample:
    """`views`: key and value are parts of the same rows, caches are parts of larger pages.

    Caches do not share pages: no compiler of torch 2.13 handles two written views of one storage
    with dynamic sizes, whatever the operator. `interleaved_v`: None leaves the argument out, as
    callers of vLLM 0.23 do.
    """

    def make(device: torch.device, generator: torch.Generator) -> Args:
        def values(shape: list[int]) -> Tensor:
            return awkward(shape, dtype, generator).to(device)

        element = stored or cache_dtype(kind, dtype)
        unit = x or 16 // element.itemsize
        num_blocks = -(-tokens // block_size) + 2
        shapes = [[heads, head_size // unit, block_size, unit], [heads, head_size, block_size]]
        key_cache, value_cache = (
            padded_pages(num_blocks, shape, element, device)
            if views
            else poisoned([num_blocks, *shape], element).to(device)
            for shape in shapes
        )
        # Two rows more than there are tokens, as in a padded batch.
        key, value = heads_of(tokens + 2, heads, (head_size, head_size), values, fused=views)
        choose = scattered_slots if scattered else slots_in_runs
        return {
            "key": key,
            "value": value,
            "key_cache": key_cache,
            "value_cache": value_cache,
            "slot_mapping": choose(tokens, num_blocks, block_size, generator).to(device),
            "kv_cache_dtype": kind,
            "k_scale": torch.tensor(0.37, device=device),
            "v_scale": torch.tensor([2.6], device=device),
            **({} if interleaved_v is None else {"interleaved_v": interleaved_v}),
        }

    name = f"{kind}-{str(dtype).removeprefix('torch.')}-{tokens}x{heads}x{head_size}-{block_size}"
    name += f"-x{x}" if x else ""
    name += "-views" if views else ""
    name += "-scattered" if scattered else ""
    name += "-float8" if stored else ""
    name += "" if interleaved_v is None else f"-interleaved-{interleaved_v}"
    return Sample(name, make)


_FP8 = "fp8-bfloat16-37x3x64-16"

CASE = OpCase(
    name="reshape_and_cache",
    samples=(
        *(sample("auto", dtype) for dtype in WRITER_DTYPES),
        *(sample("fp8", dtype) for dtype in WRITER_DTYPES),
        *(sample("fp8_e5m2", dtype) for dtype in WRITER_DTYPES),
        *(sample("auto", dtype, 61, 5, 80, 8, views=True) for dtype in WRITER_DTYPES),
        *(sample("fp8", dtype, 61, 5, 80, 8, views=True) for dtype in WRITER_DTYPES),
        sample("bfloat16", torch.bfloat16, 29, scattered=True),
        sample("float16", torch.float32, 29, scattered=True),
        sample("fp8_e4m3", torch.float16, 29, scattered=True),
        sample("fp8_ds_mla", torch.bfloat16, 29, views=True),
        sample("fp8", torch.bfloat16, 40, stored=torch.float8_e4m3fn),
        sample("fp8_e5m2", torch.float16, 40, stored=torch.float8_e5m2),
        # 640 pairs of head and x-chunk: vLLM writes 512 of them.
        sample("auto", torch.bfloat16, 5, 20, 256),
        sample("fp8", torch.bfloat16, 70, 1, 1040, 128),
        sample("auto", torch.float16, 100, 2, 24, 40),
        sample("auto", torch.bfloat16, 19, 2, 20, 16, x=5),
        sample("fp8", torch.bfloat16, 19, 2, 66, 16, x=33, views=True),
        sample("fp8", torch.float16, 35, 2, 36, 16, x=4),
        sample("fp8_e5m2", torch.float32, 35, 2, 36, 32, x=2),
        sample("auto", torch.float32, 3, 1, 1, 1, x=1),
        sample("auto", torch.float16, 7, 2, 8, 3),
        sample("fp8", torch.float32, 1, 2, 48, 5),
        sample("auto", torch.bfloat16, 0),
        sample("fp8", torch.bfloat16, 0),
        *(sample("auto", dtype, interleaved_v=True) for dtype in WRITER_DTYPES),
        *(sample("fp8", dtype, 41, interleaved_v=True) for dtype in WRITER_DTYPES),
        sample("fp8_e5m2", torch.float16, 41, 2, 80, 64, interleaved_v=True, views=True),
        sample("auto", torch.bfloat16, 61, 2, 80, 32, interleaved_v=True, views=True),
        sample("auto", torch.float16, 29, scattered=True, interleaved_v=True),
        sample("fp8", torch.bfloat16, 29, 1, 30, 15, x=5, interleaved_v=True),
        sample("auto", torch.float32, 9, 2, 6, 4, x=1, interleaved_v=True),
        sample("auto", torch.bfloat16, 37, interleaved_v=False),
    ),
    refusals=(
        Refusal(
            "kind", change(kv_cache_dtype=lambda _: "int8"), "kv_cache_dtype must be one of auto,"
        ),
        Refusal("nvfp4", change(kv_cache_dtype=lambda _: "nvfp4"), "kv_cache_dtype must be one of"),
        Refusal("key rank", change(key=lambda t: t[0]), "key must have 3 dimensions"),
        Refusal(
            "value heads", change(value=lambda t: t[:, 1:]), r"value must have shape \[\*, 3, 64\]"
        ),
        Refusal("value width", change(value=lambda t: t[..., 1:]), "value must have shape"),
        Refusal("key cache rank", change(key_cache=lambda t: t[0]), "key_cache must have 5 dim"),
        Refusal(
            "no x", change(key_cache=lambda t: t[..., :0]), "key_cache must not be empty in dim"
        ),
        Refusal(
            "key cache heads",
            change(key_cache=lambda t: t[:, 1:]),
            r"key_cache must have shape \[5, 3, 8, 16, 8\], got \[5, 2, 8, 16, 8\]",
        ),
        Refusal("key cache chunks", change(key_cache=lambda t: t[:, :, 1:]), "key_cache must have"),
        Refusal("x", change(key_cache=lambda t: t[..., :4]), "key_cache must have shape"),
        Refusal("blocks", change(value_cache=lambda t: t[1:]), "value_cache must have shape"),
        Refusal("heads", change(value_cache=lambda t: t[:, 1:]), "value_cache must have shape"),
        Refusal("width", change(value_cache=lambda t: t[:, :, 1:]), "value_cache must have shape"),
        Refusal("block size", change(value_cache=lambda t: t[..., 1:]), "value_cache must have"),
        Refusal(
            "remainder of x kept by the value cache",
            change(
                key=lambda t: t[..., :60],
                value=lambda t: t[..., :60],
                key_cache=lambda t: t[:, :, :7],
                value_cache=lambda t: t[:, :, :60],
            ),
            r"value_cache must have shape \[5, 3, 56, 16\]",
        ),
        Refusal(
            "key cache offsets", change(key_cache=lambda t: innermost(t, 2)), "key_cache must have"
        ),
        Refusal(
            "interleaved values in pages that x does not divide",
            lambda args: args.update(
                interleaved_v=True,
                key_cache=args["key_cache"][:, :, :, :12].contiguous(),
                value_cache=args["value_cache"][..., :12].contiguous(),
            ),
            "key_cache must have a block size that is a multiple of x for interleaved_v",
        ),
        Refusal(
            "key cache gaps", change(key_cache=every_second), "key_cache must have stride 1 in dim"
        ),
        Refusal(
            "value cache gaps", change(value_cache=every_second), "value_cache must have stride 1"
        ),
        Refusal(
            "value cache widths",
            change(value_cache=lambda t: innermost(t, 2)),
            "value_cache must have stride",
        ),
        Refusal(
            "slots rank", change(slot_mapping=lambda t: t[None]), "slot_mapping must have 1 dim"
        ),
        Refusal("slots dtype", change(slot_mapping=Tensor.int), "slot_mapping must have dtype"),
        Refusal("slot gaps", change(slot_mapping=every_second), "slot_mapping must have stride 1"),
        Refusal(
            "keys missing",
            change(key=lambda t: t[:36]),
            r"key must have a row for each of the 37 slots in slot_mapping, got shape \[36,",
        ),
        Refusal("values missing", change(value=lambda t: t[:36]), "value must have a row for each"),
        Refusal("key dtype", change(key=Tensor.double), "key must have dtype one of"),
        Refusal("value dtype", change(value=Tensor.half), "value must have dtype bfloat16"),
        Refusal("key gaps", change(key=every_second), "key must have stride 1 in dimension 2"),
        Refusal("value gaps", change(value=lambda t: innermost(t, 1)), "value must have stride 1"),
        Refusal("key cache dtype", change(key_cache=Tensor.half), "key_cache must have dtype"),
        Refusal("value cache dtype", change(value_cache=Tensor.half), "value_cache must have"),
        Refusal(
            "fp8 of the other format",
            change(key_cache=lambda t: t.view(torch.float8_e5m2)),
            "key_cache must have dtype one of uint8, float8_e4m3fn, got float8_e5m2",
            _FP8,
        ),
        Refusal("scale dtype", change(k_scale=Tensor.double), "k_scale must have dtype", _FP8),
        Refusal(
            "scales", change(v_scale=lambda t: t.repeat(3)), r"v_scale must have 1 element", _FP8
        ),
        Refusal("key freed", change(key=freed), "key must have a storage"),
        Refusal("value freed", change(value=freed), "value must have a storage"),
        Refusal("key cache freed", change(key_cache=freed), "key_cache must have a storage"),
        Refusal("value cache freed", change(value_cache=freed), "value_cache must have a storage"),
        Refusal("slots freed", change(slot_mapping=freed), "slot_mapping must have a storage"),
        Refusal("scale freed", change(v_scale=freed), "v_scale must have a storage", _FP8),
    ),
    outputs=("key_cache", "value_cache"),
    hostile={
        "slot_mapping": lambda args: args["value_cache"].size(0) * args["value_cache"].size(3)
    },
    padding=("slot_mapping",),
)
