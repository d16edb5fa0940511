"""Cases of concat_and_cache_mla_rope_fused: dtypes, both kinds of pairs, odd widths, views."""

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

_POSITIONS = 29


def sample(
    kind: str,
    dtype: torch.dtype,
    is_neox: bool,
    tokens: int = 7,
    heads: int = 3,
    widths: tuple[int, int] = (512, 64),
    *,
    views: bool = False,
) -> Sample:
    """`views`: every tensor whose strides are free has other ones than a dense one."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        latent, rot = widths

        def random(*shape: int) -> Tensor:
            dense = awkward(*shape, dtype=dtype, generator=generator)
            return (widened(dense, 3) if views else dense).to(device)

        q_pe = random(heads, tokens, rot).transpose(0, 1)
        is_fp8 = kind.startswith("fp8")
        shape = (4, 2, 8, latent + rot + 5) if views else (4, 8, latent + rot)
        cache = poisoned(*shape, dtype=torch.uint8 if is_fp8 else dtype).to(device)
        padding = [tokens // 2] if tokens > 2 else []
        return {
            # One position more than there are tokens.
            "positions": torch.randint(_POSITIONS, [tokens + 1], generator=generator).to(device),
            "q_pe": q_pe if views else q_pe.contiguous(),
            "k_pe": random(tokens, rot),
            "kv_c": random(tokens, latent),
            "cos_sin_cache": random(_POSITIONS, rot),
            "is_neox": is_neox,
            "slot_mapping": distinct_slots(tokens, 32, generator, padding).to(device),
            "kv_cache": cache[:, 1, :, : latent + rot] if views else cache,
            "kv_cache_dtype": kind,
            "kv_cache_scale": torch.tensor(0.3, device=device),
        }

    name = str(dtype).removeprefix("torch.")
    width = "+".join(map(str, widths))
    pairs = "neox" if is_neox else "gptj"
    sample_id = f"{kind}-{name}-{pairs}-{tokens}x{heads}x{width}{'-views' if views else ''}"
    return Sample(sample_id, make)


_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_FP8 = "fp8-bfloat16-neox-7x3x512+64"


def _shorter(tensor: Tensor) -> Tensor:
    return tensor[:-1]


CASE = OpCase(
    name="concat_and_cache_mla_rope_fused",
    samples=(
        *(sample("auto", dtype, neox) for dtype in _DTYPES for neox in (True, False)),
        *(sample("fp8", dtype, neox) for dtype in _DTYPES for neox in (True, False)),
        sample("fp8_e5m2", torch.float16, False),
        sample("fp8_ds_mla", torch.bfloat16, True),
        # Around the 32 pairs that are rotated together, and none.
        sample("auto", torch.bfloat16, True, widths=(20, 66), views=True),
        sample("auto", torch.float16, False, widths=(20, 62), views=True),
        sample("auto", torch.float32, False, widths=(3, 130), views=True),
        sample("fp8_e4m3", torch.float16, True, widths=(5, 2), views=True),
        sample("auto", torch.bfloat16, False, widths=(16, 0)),
        sample("auto", torch.bfloat16, True, 5, 0),
        sample("auto", torch.bfloat16, False, 30, 40, views=True),
        sample("auto", torch.bfloat16, True, 1, 1),
        sample("auto", torch.bfloat16, True, 0),
    ),
    refusals=(
        Refusal("kind", set_to(kv_cache_dtype="nvfp4"), "kv_cache_dtype must be one of"),
        Refusal("q_pe rank", replace("q_pe", lambda t: t[0]), "q_pe must have 3 dimensions"),
        Refusal("odd", replace("q_pe", lambda t: t[..., 1:]), "q_pe must have an even last"),
        Refusal("k_pe tokens", replace("k_pe", _shorter), "k_pe must have shape"),
        Refusal("k_pe width", replace("k_pe", lambda t: t[:, :32]), "k_pe must have shape"),
        Refusal("kv_c tokens", replace("kv_c", _shorter), "kv_c must have shape"),
        Refusal("slots", replace("slot_mapping", _shorter), "slot_mapping must have shape"),
        Refusal("positions", replace("positions", lambda t: t[2:]), "positions must have at least"),
        Refusal("table", replace("cos_sin_cache", lambda t: t[:, 2:]), "cos_sin_cache must have"),
        Refusal("width", replace("kv_cache", lambda t: t[..., 1:]), "kv_cache must have shape"),
        Refusal("q_pe dtype", replace("q_pe", Tensor.half), "q_pe must have dtype bfloat16"),
        Refusal("k_pe dtype", replace("k_pe", Tensor.half), "k_pe must have dtype bfloat16"),
        Refusal("kv_c dtype", replace("kv_c", Tensor.double), "kv_c must have dtype one of"),
        Refusal("table dtype", replace("cos_sin_cache", Tensor.float), "cos_sin_cache must have"),
        Refusal("positions dtype", replace("positions", Tensor.int), "positions must have dtype"),
        Refusal("slots dtype", replace("slot_mapping", Tensor.int), "slot_mapping must have dtype"),
        Refusal("cache dtype", replace("kv_cache", Tensor.half), "kv_cache must have dtype"),
        Refusal("cache fp8", replace("kv_cache", Tensor.half), "kv_cache must have dtype", _FP8),
        Refusal("q_pe stride", replace("q_pe", transposed), "q_pe must have stride 1"),
        Refusal("k_pe stride", replace("k_pe", transposed), "k_pe must have stride 1"),
        Refusal("kv_c stride", replace("kv_c", transposed), "kv_c must have stride 1"),
        Refusal("table stride", replace("cos_sin_cache", transposed), "cos_sin_cache must have"),
        Refusal("cache stride", replace("kv_cache", transposed), "kv_cache must have stride 1"),
        Refusal("q_pe freed", replace("q_pe", freed), "q_pe must have a storage"),
        Refusal("table freed", replace("cos_sin_cache", freed), "cos_sin_cache must have a stor"),
        Refusal(
            "scale dtype",
            replace("kv_cache_scale", Tensor.double),
            "kv_cache_scale must have dtype float32",
            _FP8,
        ),
        Refusal(
            "scales",
            replace("kv_cache_scale", lambda t: t.repeat(2)),
            "kv_cache_scale must have 1 element",
            _FP8,
        ),
    ),
    outputs=("q_pe", "k_pe", "kv_cache"),
    hostile={
        "slot_mapping": lambda args: args["kv_cache"].size(0) * args["kv_cache"].size(1),
        "positions": lambda args: args["cos_sin_cache"].size(0),
    },
    padding=("slot_mapping",),
)
