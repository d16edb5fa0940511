"""Cases of reshape_and_cache_flash: NHD, HND and padded pages, scales per head, value sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from cache.inputs import (
    WRITER_DTYPES,
    awkward,
    cache_dtype,
    change,
    entry_elems,
    every_second,
    freed,
    heads_of,
    innermost,
    mostly_tame,
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
    sizes: tuple[int, int] = (64, 64),
    block_size: int = 16,
    *,
    layout: str = "NHD",
    views: bool = False,
    per_head: bool = False,
    scattered: bool = False,
    stored: torch.dtype | None = None,
) -> Sample:
    """`views`: key and value are parts of the same rows, caches are parts of larger pages."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        def values(shape: list[int]) -> Tensor:
            make_values = mostly_tame if kind.startswith("nvfp4") else awkward
            return make_values(shape, dtype, generator).to(device)

        element = stored or cache_dtype(kind, dtype)
        num_blocks = -(-tokens // block_size) + 2
        inner = [heads, block_size] if layout == "HND" else [block_size, heads]
        shapes = [[*inner, entry_elems(kind, size)] for size in sizes]
        caches = [
            padded_pages(num_blocks, shape, element, device)
            if views
            else poisoned([num_blocks, *shape], element).to(device)
            for shape in shapes
        ]
        if layout == "HND":
            caches = [cache.transpose(1, 2) for cache in caches]
        key, value = heads_of(tokens + 2, heads, sizes, values, fused=views)
        choose = scattered_slots if scattered else slots_in_runs
        scales = torch.rand([2, heads] if per_head else [2, 1], generator=generator).to(device)
        return {
            "key": key,
            "value": value,
            "key_cache": caches[0],
            "value_cache": caches[1],
            "slot_mapping": choose(tokens, num_blocks, block_size, generator).to(device),
            "kv_cache_dtype": kind,
            "k_scale": scales[0],
            "v_scale": scales[1],
        }

    width = "+".join(map(str, dict.fromkeys(sizes)))
    name = f"{kind}-{str(dtype).removeprefix('torch.')}-{tokens}x{heads}x{width}-{block_size}"
    name += f"-{layout}" if layout != "NHD" else ""
    name += "-views" if views else ""
    name += "-per-head" if per_head else ""
    name += "-scattered" if scattered else ""
    name += "-float8" if stored else ""
    return Sample(name, make)


_FP8 = "fp8-bfloat16-37x3x64-16"
_PER_HEAD = "fp8-bfloat16-37x3x64-16-per-head"
_NVFP4 = "nvfp4-bfloat16-37x3x64-16"

CASE = OpCase(
    name="reshape_and_cache_flash",
    samples=(
        *(sample("auto", dtype) for dtype in WRITER_DTYPES),
        *(sample("fp8", dtype) for dtype in WRITER_DTYPES),
        *(sample("fp8_e5m2", dtype) for dtype in WRITER_DTYPES),
        sample("fp8", torch.bfloat16, per_head=True),
        sample("auto", torch.bfloat16, per_head=True),
        sample("auto", torch.bfloat16, layout="HND"),
        sample("fp8", torch.float16, layout="HND", per_head=True),
        sample("auto", torch.float32, 29, 5, (80, 80), 8, layout="HND", views=True),
        sample("fp8", torch.bfloat16, 29, 5, (80, 80), 8, views=True, per_head=True),
        sample("auto", torch.float16, 29, 5, (192, 128), 8, views=True),
        sample("fp8_e5m2", torch.bfloat16, 29, 5, (192, 128), 8, layout="HND", per_head=True),
        # Rows that are no multiple of 16 bytes: 13 heads of 46.
        sample("auto", torch.bfloat16, 29, 13, (46, 46)),
        sample("fp8_e4m3", torch.float16, 29, 13, (46, 46), scattered=True),
        sample("bfloat16", torch.float16, 29, scattered=True),
        sample("float16", torch.float32, 29, scattered=True, layout="HND"),
        sample("fp8_ds_mla", torch.bfloat16, 29),
        sample("fp8", torch.bfloat16, 40, stored=torch.float8_e4m3fn),
        sample("fp8_e5m2", torch.float16, 40, stored=torch.float8_e5m2),
        # Fewer than 32 elements per token: vLLM never returns.
        sample("auto", torch.float32, 3, 1, (1, 1), 1),
        sample("fp8", torch.bfloat16, 7, 2, (5, 9), 3, per_head=True),
        *(sample("nvfp4", dtype) for dtype in WRITER_DTYPES),
        *(sample("nvfp4_linear", dtype) for dtype in WRITER_DTYPES),
        sample("nvfp4", torch.bfloat16, 61, 5, (128, 128), layout="HND"),
        sample("nvfp4", torch.float16, 29, 2, (80, 192), 8, layout="HND", views=True),
        sample("nvfp4", torch.bfloat16, 29, 5, (112, 64), 12, views=True),
        sample("nvfp4", torch.float32, 29, 1, (256, 256), scattered=True),
        sample("nvfp4", torch.bfloat16, 29, scattered=True, layout="HND"),
        sample("nvfp4_linear", torch.bfloat16, 29, 3, (16, 48), 5, views=True, layout="HND"),
        sample("nvfp4_linear", torch.float16, 29, 2, (144, 2048), 1, scattered=True),
        sample("nvfp4", torch.bfloat16, 0),
        sample("auto", torch.bfloat16, 1),
        sample("auto", torch.bfloat16, 0),
        sample("fp8", torch.bfloat16, 0, per_head=True),
    ),
    refusals=(
        Refusal(
            "kind", change(kv_cache_dtype=lambda _: "int8"), "kv_cache_dtype must be one of auto,"
        ),
        Refusal(
            "nvfp4 into other pages",
            change(kv_cache_dtype=lambda _: "nvfp4"),
            r"key_cache must have shape \[\*, \*, 3, 36\], got \[5, 16, 3, 64\]",
        ),
        Refusal(
            "4 over 6",
            change(kv_cache_dtype=lambda _: "nvfp4_4over6"),
            "kv_cache_dtype must be one of auto, .*, nvfp4, nvfp4_linear; got 'nvfp4_4over6'",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 head size", change(key=lambda t: t[..., :40]), "key must have a head", _NVFP4
        ),
        Refusal(
            "nvfp4 tiles",
            change(value=lambda t: t[..., :48], value_cache=lambda t: t[..., :27].contiguous()),
            "value must have a head size that is a multiple of 64, as nvfp4 stores",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 block size",
            change(
                key_cache=lambda t: t[:, :6].contiguous(),
                value_cache=lambda t: t[:, :6].contiguous(),
            ),
            "value_cache must have a block size that is a multiple of 4",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 gaps",
            change(key_cache=lambda t: t.repeat(1, 1, 1, 2)[..., :36]),
            r"key_cache must have pages without gaps, strides \[108, 36\] or \[36, 576\] in",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 bytes",
            change(value_cache=lambda t: innermost(t, 1)),
            "value_cache must have stride 1 in dimension 3",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 pages",
            change(value_cache=lambda t: t[..., 1:]),
            "value_cache must have shape",
            _NVFP4,
        ),
        Refusal(
            "nvfp4 cache dtype",
            change(key_cache=lambda t: t.view(torch.float8_e4m3fn)),
            "key_cache must have dtype uint8, got float8_e4m3fn",
            _NVFP4,
        ),
        Refusal("nvfp4 key dtype", change(key=Tensor.double), "key must have dtype", _NVFP4),
        Refusal("nvfp4 value dtype", change(value=Tensor.half), "value must have", _NVFP4),
        Refusal("nvfp4 keys missing", change(key=lambda t: t[:9]), "key must have a row", _NVFP4),
        Refusal(
            "nvfp4 scales",
            change(k_scale=lambda t: t.repeat(3), v_scale=lambda t: t.repeat(3)),
            r"k_scale must have 1 element\(s\), got shape \[3\]",
            _NVFP4,
        ),
        Refusal("nvfp4 scale dtype", change(v_scale=Tensor.half), "v_scale must have", _NVFP4),
        Refusal("nvfp4 freed", change(key_cache=freed), "key_cache must have a storage", _NVFP4),
        Refusal("key rank", change(key=lambda t: t[0]), "key must have 3 dimensions"),
        Refusal(
            "value heads", change(value=lambda t: t[:, 1:]), r"value must have shape \[\*, 3, \*\]"
        ),
        Refusal("value rank", change(value=lambda t: t[0]), "value must have shape"),
        Refusal("key cache rank", change(key_cache=lambda t: t[0]), "key_cache must have shape"),
        Refusal(
            "key cache heads",
            change(key_cache=lambda t: t[:, :, 1:]),
            r"key_cache must have shape \[\*, \*, 3, 64\], got \[5, 16, 2, 64\]",
        ),
        Refusal("key cache width", change(key_cache=lambda t: t[..., 1:]), "key_cache must have"),
        Refusal("blocks", change(value_cache=lambda t: t[1:]), "value_cache must have shape"),
        Refusal("block size", change(value_cache=lambda t: t[:, 1:]), "value_cache must have"),
        Refusal("heads", change(value_cache=lambda t: t[:, :, 1:]), "value_cache must have shape"),
        Refusal("width", change(value_cache=lambda t: t[..., 1:]), "value_cache must have shape"),
        Refusal(
            "key cache gaps", change(key_cache=every_second), "key_cache must have stride 1 in dim"
        ),
        Refusal(
            "value cache gaps",
            change(value_cache=lambda t: innermost(t, 1)),
            "value_cache must have stride 1 in dimension 3",
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
            change(value_cache=lambda t: t.view(torch.float8_e5m2)),
            "value_cache must have dtype one of uint8, float8_e4m3fn, got float8_e5m2",
            _FP8,
        ),
        Refusal("scale dtype", change(k_scale=Tensor.double), "k_scale must have dtype", _FP8),
        Refusal(
            "scales of two shapes",
            change(v_scale=lambda t: t[0]),
            r"v_scale must have the same shape as k_scale, \[1\], got \[\]",
        ),
        Refusal(
            "two scales for three heads",
            change(k_scale=lambda t: t.repeat(2), v_scale=lambda t: t.repeat(2)),
            r"k_scale must have one element or one for each of the 3 heads, got shape \[2\]",
        ),
        Refusal(
            "scale gaps", change(v_scale=every_second), "v_scale must have stride 1", _PER_HEAD
        ),
        Refusal("key freed", change(key=freed), "key must have a storage"),
        Refusal("value freed", change(value=freed), "value must have a storage"),
        Refusal("key cache freed", change(key_cache=freed), "key_cache must have a storage"),
        Refusal("value cache freed", change(value_cache=freed), "value_cache must have a storage"),
        Refusal("slots freed", change(slot_mapping=freed), "slot_mapping must have a storage"),
        Refusal("scale freed", change(v_scale=freed), "v_scale must have a storage", _FP8),
    ),
    outputs=("key_cache", "value_cache"),
    hostile={"slot_mapping": lambda args: args["key_cache"].size(0) * args["key_cache"].size(1)},
    padding=("slot_mapping",),
)
