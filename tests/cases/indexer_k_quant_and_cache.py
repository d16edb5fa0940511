"""Cases of indexer_k_quant_and_cache: both formats of scales, several tiles, padded blocks."""

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


def sample(
    scale_format: str,
    tokens: int = 21,
    head_size: int = 128,
    blocks: tuple[int, int] = (3, 16),
    *,
    views: bool = False,
) -> Sample:
    """`views`: rows of k apart from each other, entries wider than needed, gaps between blocks."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        k = awkward(tokens, head_size, dtype=torch.bfloat16, generator=generator).to(device)
        entry_bytes = head_size + head_size // 32
        shape = (blocks[0], 2, blocks[1], entry_bytes + 7) if views else (*blocks, entry_bytes)
        cache = poisoned(*shape, dtype=torch.uint8).to(device)
        padding = [tokens // 2] if tokens > 2 else []
        # One slot more than there are keys.
        slots = distinct_slots(tokens + 1, blocks[0] * blocks[1], generator, padding)
        return {
            "k": widened(k, 5) if views else k,
            "kv_cache": cache[:, 1] if views else cache,
            "slot_mapping": slots.to(device),
            "quant_block_size": 128,
            "kv_cache_dtype": scale_format,
        }

    name = f"{scale_format or 'empty'}-{tokens}x{head_size}-{blocks[1]}{'-views' if views else ''}"
    return Sample(name, make)


CASE = OpCase(
    name="indexer_k_quant_and_cache",
    samples=(
        sample("ue8m0"),
        sample("auto"),
        sample("ue8m0", 13, 512, (5, 7), views=True),
        sample("fp8", 13, 384, (5, 7), views=True),
        sample("", 33, 128, (40, 1)),
        sample("ue8m0", 200, 128, (4, 64)),
        sample("auto", 1, 128, (1, 2)),
        sample("ue8m0", 0),
    ),
    refusals=(
        Refusal("rank", replace("k", lambda t: t[0]), "k must have 2 dimensions"),
        Refusal("half", replace("k", Tensor.half), "k must have dtype bfloat16, got float16"),
        Refusal("float", replace("k", Tensor.float), "k must have dtype bfloat16, got float32"),
        Refusal("stride", replace("k", transposed), "k must have stride 1"),
        Refusal("columns", replace("k", lambda t: t[:, :64]), "k must have a multiple of 128"),
        Refusal("block", set_to(quant_block_size=64), "quant_block_size must be 128, got 64"),
        Refusal("cache rank", replace("kv_cache", lambda t: t[0]), "kv_cache must have 3 dim"),
        Refusal("cache dtype", replace("kv_cache", Tensor.short), "kv_cache must have dtype one"),
        Refusal("cache width", replace("kv_cache", lambda t: t[..., 1:]), "kv_cache must have"),
        Refusal("gaps", replace("kv_cache", lambda t: widened(t, 2)), "kv_cache must have stride"),
        Refusal("cache stride", replace("kv_cache", transposed), "kv_cache must have stride 1"),
        Refusal("slots rank", replace("slot_mapping", lambda t: t[None]), "slot_mapping must have"),
        Refusal("slots", replace("slot_mapping", lambda t: t[2:]), "slot_mapping must have at le"),
        Refusal("slots dtype", replace("slot_mapping", Tensor.int), "slot_mapping must have dtype"),
        Refusal("freed", replace("k", freed), "k must have a storage"),
        Refusal("cache freed", replace("kv_cache", freed), "kv_cache must have a storage"),
    ),
    outputs=("kv_cache",),
    hostile={"slot_mapping": lambda args: args["kv_cache"].size(0) * args["kv_cache"].size(1)},
    padding=("slot_mapping",),
)
