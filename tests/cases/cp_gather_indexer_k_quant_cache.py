"""Cases of cp_gather_indexer_k_quant_cache: several widths, padded outputs and blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change, every_second, to_long
from gather.paged import make_requests, poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample


def sample(
    sample_id: str,
    lengths: Sequence[int],
    *,
    head_dim: int = 128,
    scale_bytes: int = 4,
    dtype: torch.dtype = torch.uint8,
    block_size: int = 64,
    spare_rows: int = 0,
    packed: bool = False,
) -> Sample:
    """`packed`: room between blocks, between rows of dst_k, and other room between scales."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        requests = make_requests(lengths, block_size, generator)
        blocks_with_room = [requests.num_blocks, 1 + packed, block_size, head_dim + scale_bytes]
        cache = random_bits(blocks_with_room, dtype, generator)[:, 0]
        num_rows = requests.num_rows + spare_rows
        dst_k = poisoned([num_rows, head_dim + 16 * packed], dtype)[:, :head_dim]
        dst_scale = poisoned([num_rows, scale_bytes + 4 * packed], torch.uint8)[:, :scale_bytes]
        return {
            "kv_cache": cache.to(device),
            "dst_k": dst_k.to(device),
            "dst_scale": dst_scale.to(device),
            "block_table": requests.block_table.to(device),
            "cu_seq_lens": requests.cu_seq_lens.to(device),
        }

    return Sample(sample_id, make)


CASE = OpCase(
    name="cp_gather_indexer_k_quant_cache",
    samples=(
        sample("uint8", [17, 1, 0, 80]),
        # CUDA has another kernel for more requests than a warp has lanes.
        sample(
            "float8-256-many-requests",
            [17, 5, 0, 80] * 9,
            head_dim=256,
            scale_bytes=8,
            dtype=torch.float8_e4m3fn,
        ),
        sample("packed", [20, 13], block_size=16, packed=True),
        sample("upper-bound-of-rows", [5, 6], spare_rows=7),
        sample("one-per-block", [3, 2], block_size=1),
        sample("one-token", [1], head_dim=3),
        sample("no-token", [0, 0]),
        sample("no-request", [], spare_rows=2),
    ),
    refusals=(
        Refusal(
            "cache width",
            change("kv_cache", lambda t: torch.cat([t, t[..., :4]], dim=-1)),
            r"kv_cache must have shape \[\*, \*, 132\], got \[.*, 136\]",
        ),
        Refusal(
            "cache dtype", change("kv_cache", torch.Tensor.half), "kv_cache must have dtype one of"
        ),
        Refusal(
            "cache rank", change("kv_cache", lambda t: t[0]), "kv_cache must have 3 dimensions"
        ),
        Refusal(
            "block gaps",
            change("kv_cache", lambda t: torch.cat([t, t], dim=1)[:, ::2]),
            "kv_cache must have stride 132 in dimension 1",
        ),
        Refusal(
            "k dtype", change("dst_k", torch.Tensor.half), "dst_k must have dtype one of uint8"
        ),
        Refusal("k gaps", change("dst_k", every_second), "dst_k must have stride 1"),
        Refusal(
            "overlapping rows of k",
            change("dst_k", lambda t: t[0].expand(t.shape)),
            "dst_k must have rows that do not overlap",
        ),
        Refusal(
            "scale dtype",
            change("dst_scale", lambda t: t.view(torch.float32)),
            "dst_scale must have dtype one of uint8, float8_e4m3fn, got float32",
        ),
        Refusal(
            "scale rows",
            change("dst_scale", lambda t: t[1:]),
            r"dst_scale must have shape \[98, \*\], got \[97, 4\]",
        ),
        Refusal(
            "half a scale",
            change("dst_scale", lambda t: t[:, :2]),
            "dst_scale must have rows of float32 scales as bytes",
        ),
        Refusal(
            "scales that do not divide the head",
            change("dst_scale", lambda t: t.repeat(1, 3)),
            "dst_scale must have rows of float32 scales as bytes, an equal part of the 128 values",
        ),
        Refusal(
            "overlapping rows of scales",
            change("dst_scale", lambda t: t[0].expand(t.shape)),
            "dst_scale must have rows that do not overlap",
        ),
        Refusal("table dtype", change("block_table", to_long), "block_table must have dtype int32"),
        Refusal(
            "table too short",
            change("block_table", lambda t: t[:3]),
            r"block_table must have at least 4 element\(s\)",
        ),
        Refusal("lengths dtype", change("cu_seq_lens", to_long), "cu_seq_lens must have dtype"),
        Refusal(
            "no lengths",
            change("cu_seq_lens", lambda t: t[:0]),
            r"cu_seq_lens must have at least 1 element\(s\)",
        ),
    ),
    outputs=("dst_k", "dst_scale"),
    hostile={
        "block_table": lambda args: args["kv_cache"].size(0),
        "cu_seq_lens": lambda args: args["dst_k"].size(0) + 1,
    },
)
