"""Cases of concat_and_cache_mla: each kind and dtype, odd widths, layer views, padding tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from mla.inputs import (
    awkward,
    distinct_slots,
    freed,
    poisoned,
    replace,
    set_to,
    transposed,
    widened,
)
from registry import Args, OpCase, Refusal, Sample

_ENTRY_BYTES = 656  # fp8_ds_mla


def sample(
    kind: str,
    dtype: torch.dtype,
    tokens: int = 11,
    widths: tuple[int, int] = (512, 64),
    blocks: tuple[int, int] = (3, 16),
    *,
    layers: bool = False,
    skip_scale: bool | None = None,
) -> Sample:
    """`layers`: inputs are slices of one tensor, and the cache one layer of many, with gaps.

    `skip_scale`: None leaves the argument out, as callers of vLLM 0.23 do.
    """

    def make(device: torch.device, generator: torch.Generator) -> Args:
        latent, rope = widths
        entry = _ENTRY_BYTES if kind.startswith("fp8_ds_mla") else latent + rope
        is_fp8 = kind.startswith("fp8")
        # Two rows more than there are tokens, as in a padded batch.
        rows = awkward(tokens + 2, latent + rope, dtype=dtype, generator=generator).to(device)
        kv_c, k_pe = rows.split([latent, rope], dim=1)
        shape = (blocks[0], 3, blocks[1], entry + 5) if layers else (*blocks, entry)
        cache = poisoned(*shape, dtype=torch.uint8 if is_fp8 else dtype).to(device)
        padding = [tokens // 2] if tokens > 2 else []
        slots = distinct_slots(tokens, blocks[0] * blocks[1], generator, padding)
        return {
            "kv_c": kv_c if layers else kv_c.contiguous(),
            "k_pe": k_pe if layers else k_pe.contiguous(),
            "kv_cache": cache[:, 1, :, :entry] if layers else cache,
            "slot_mapping": slots.to(device),
            "kv_cache_dtype": kind,
            "scale": torch.tensor(0.1, device=device),
            **({} if skip_scale is None else {"skip_scale": skip_scale}),
        }

    name = str(dtype).removeprefix("torch.")
    width = "+".join(map(str, widths))
    name = f"{kind}-{name}-{tokens}x{width}{'-layers' if layers else ''}"
    return Sample(name if skip_scale is None else f"{name}-skip-scale-{skip_scale}", make)


_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_FP8 = "fp8-bfloat16-11x512+64"
_DS_MLA = "fp8_ds_mla-bfloat16-11x512+64"
_POW2 = "fp8_ds_mla_pow2-bfloat16-11x512+64"


def _too_few(tensor: Tensor) -> Tensor:
    return tensor[:-3]


CASE = OpCase(
    name="concat_and_cache_mla",
    samples=(
        *(sample("auto", dtype) for dtype in _DTYPES),
        *(sample("fp8", dtype) for dtype in _DTYPES),
        *(sample("fp8_e5m2", dtype) for dtype in _DTYPES),
        sample("fp8_ds_mla", torch.bfloat16),
        sample("fp8_ds_mla", torch.bfloat16, 37, blocks=(5, 9), layers=True),
        sample("fp8_ds_mla_pow2", torch.bfloat16),
        sample("fp8_ds_mla_pow2", torch.bfloat16, 37, blocks=(5, 9), layers=True),
        sample("fp8_ds_mla_pow2", torch.bfloat16, 12, (512, 0)),
        *(sample("fp8", dtype, 12, skip_scale=True) for dtype in _DTYPES),
        sample("fp8_e5m2", torch.float16, 12, skip_scale=True, layers=True),
        sample("fp8", torch.bfloat16, 12, skip_scale=False),
        sample("auto", torch.bfloat16, 12, skip_scale=True),
        sample("fp8_ds_mla", torch.bfloat16, 12, skip_scale=True),
        sample("fp8_e4m3", torch.float16, 9, (129, 5), (4, 7), layers=True),
        sample("fp8", torch.bfloat16, 9, (200, 67), (4, 7)),
        sample("auto", torch.float32, 9, (7, 3), (2, 5), layers=True),
        sample("auto", torch.bfloat16, 600, (33, 0), (40, 16)),
        sample("bfloat16", torch.bfloat16, 5, (512, 64), (1, 8), layers=True),
        sample("float16", torch.bfloat16, 2, (1, 1), (9, 1)),
        sample("auto", torch.float16, 0),
        sample("fp8_ds_mla", torch.bfloat16, 0),
    ),
    refusals=(
        Refusal("kind", set_to(kv_cache_dtype="int8"), "kv_cache_dtype must be one of"),
        Refusal("kv_c rank", replace("kv_c", lambda t: t[0]), "kv_c must have 2 dimensions"),
        Refusal("k_pe rank", replace("k_pe", lambda t: t[None]), "k_pe must have 2 dimensions"),
        Refusal("cache rank", replace("kv_cache", lambda t: t[0]), "kv_cache must have shape"),
        Refusal("slots rank", replace("slot_mapping", lambda t: t[None]), "slot_mapping must have"),
        Refusal("width", replace("kv_cache", lambda t: t[..., 1:]), "kv_cache must have shape"),
        Refusal("kv_c rows", replace("kv_c", _too_few), "kv_c must have at least 11 rows"),
        Refusal("k_pe rows", replace("k_pe", _too_few), "k_pe must have at least 11 rows"),
        Refusal("kv_c dtype", replace("kv_c", Tensor.double), "kv_c must have dtype one of"),
        Refusal("mixed", replace("k_pe", Tensor.half), "k_pe must have dtype bfloat16"),
        Refusal("cache dtype", replace("kv_cache", Tensor.half), "kv_cache must have dtype"),
        Refusal("cache fp8", replace("kv_cache", Tensor.half), "kv_cache must have dtype", _FP8),
        Refusal("slots dtype", replace("slot_mapping", Tensor.int), "slot_mapping must have dtype"),
        Refusal("kv_c stride", replace("kv_c", transposed), "kv_c must have stride 1"),
        Refusal("k_pe stride", replace("k_pe", transposed), "k_pe must have stride 1"),
        Refusal("cache stride", replace("kv_cache", transposed), "kv_cache must have stride 1"),
        Refusal(
            "slots stride",
            replace("slot_mapping", lambda t: widened(t[:, None], 1)[:, 0]),
            "slot_mapping must have stride 1",
        ),
        Refusal("freed", replace("kv_c", freed), "kv_c must have a storage"),
        Refusal("cache freed", replace("kv_cache", freed), "kv_cache must have a storage"),
        Refusal("slots freed", replace("slot_mapping", freed), "slot_mapping must have a storage"),
        Refusal("scale dtype", replace("scale", Tensor.double), "scale must have dtype", _FP8),
        Refusal("scales", replace("scale", lambda t: t.repeat(2)), "scale must have 1 elem", _FP8),
        Refusal("ds latent", replace("kv_c", lambda t: t[:, 1:]), "kv_c must have shape", _DS_MLA),
        Refusal("ds rope", replace("k_pe", lambda t: t[:, 1:]), "k_pe must have shape", _DS_MLA),
        Refusal(
            "ds entry", replace("kv_cache", lambda t: t[..., :-1]), "kv_cache must have", _DS_MLA
        ),
        Refusal("ds half", replace("kv_c", Tensor.half), "kv_c must have dtype", _DS_MLA),
        Refusal("ds no rope", replace("k_pe", lambda t: t[:, :0]), "k_pe must have", _DS_MLA),
        Refusal("pow2 rope", replace("k_pe", lambda t: t[:, 1:]), "k_pe must have", _POW2),
        Refusal("pow2 half", replace("kv_c", Tensor.half), "kv_c must have dtype", _POW2),
        Refusal("pow2 entry", replace("kv_cache", lambda t: t[..., 1:]), "kv_cache must", _POW2),
        Refusal("ds mixed", replace("k_pe", Tensor.half), "k_pe must have dtype", _DS_MLA),
        # 656 bytes in 328 columns: vLLM lets this pass and then takes strides for byte offsets.
        Refusal(
            "ds wide elements",
            replace("kv_cache", lambda t: t.view(torch.int16)),
            "kv_cache must have shape",
            _DS_MLA,
        ),
    ),
    outputs=("kv_cache",),
    hostile={"slot_mapping": lambda args: args["kv_cache"].size(0) * args["kv_cache"].size(1)},
    padding=("slot_mapping",),
)
