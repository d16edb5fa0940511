"""Cases of cp_gather_and_upconvert_fp8_kv_cache: any bytes, rows before the first request."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change, every_second, to_long
from gather.paged import make_requests, packed_cache, poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample


def sample(
    sample_id: str,
    lengths: Sequence[int],
    *,
    cache_dtype: torch.dtype = torch.uint8,
    block_size: int = 64,
    rows_before: int = 0,
    packed: bool = False,
) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        requests = make_requests(lengths, block_size, generator)
        cache = random_bits([requests.num_blocks, block_size, 656], cache_dtype, generator)
        num_rows = requests.num_rows + rows_before
        row_gap = 1 if packed else 0
        dst = poisoned([num_rows, 1 + row_gap, 576], torch.bfloat16)[:, 0]
        return {
            "src_cache": (packed_cache(cache) if packed else cache).to(device),
            "dst": dst.to(device),
            "block_table": requests.block_table.to(device),
            "seq_lens": torch.tensor(lengths, dtype=torch.int32, device=device),
            "workspace_starts": (requests.cu_seq_lens[:-1] + rows_before).to(device),
            "batch_size": len(lengths),
        }

    return Sample(sample_id, make)


CASE = OpCase(
    name="cp_gather_and_upconvert_fp8_kv_cache",
    samples=(
        sample("uint8", [17, 1, 0, 80]),
        # CUDA has another kernel for more requests than a warp has lanes.
        sample(
            "e4m3-many-requests",
            [17, 1, 0, 8] * 9,
            cache_dtype=torch.float8_e4m3fn,
            block_size=16,
        ),
        sample("e5m2-packed", [20, 13], cache_dtype=torch.float8_e5m2, block_size=7, packed=True),
        sample("rows-before", [5, 6], rows_before=4),
        sample("one-token", [1]),
        sample("one-per-block", [3, 2], block_size=1, packed=True),
        sample("no-token", [0, 0]),
        sample("no-request", [], rows_before=2),
    ),
    refusals=(
        Refusal(
            "cache width",
            change("src_cache", lambda t: t[..., 1:]),
            r"src_cache must have shape \[\*, \*, 656\], got \[.*, 655\]",
        ),
        Refusal(
            "cache dtype",
            change("src_cache", torch.Tensor.bfloat16),
            "src_cache must have dtype one of uint8, float8_e4m3fn, float8_e5m2, got bfloat16",
        ),
        Refusal("dst dtype", change("dst", torch.Tensor.half), "dst must have dtype bfloat16"),
        Refusal(
            "row width",
            change("dst", lambda t: t[:, 1:]),
            r"dst must have shape \[\*, 576\], got \[98, 575\]",
        ),
        Refusal("entry gaps", change("src_cache", every_second), "src_cache must have stride 1"),
        Refusal("row gaps", change("dst", every_second), "dst must have stride 1"),
        Refusal(
            "overlapping rows",
            change("dst", lambda t: t[0].expand(t.shape)),
            "dst must have rows that do not overlap",
        ),
        Refusal(
            "batch larger than starts",
            change("batch_size", lambda n: n + 1),
            r"batch_size must be in \[0, 4\], the requests of workspace_starts, got 5",
        ),
        Refusal(
            "negative batch", change("batch_size", lambda n: -1), "batch_size must be in .* -1"
        ),
        Refusal("lengths dtype", change("seq_lens", to_long), "seq_lens must have dtype int32"),
        Refusal(
            "lengths too short",
            change("seq_lens", lambda t: t[1:]),
            r"seq_lens must have at least 4 element\(s\)",
        ),
        Refusal(
            "starts dtype",
            change("workspace_starts", to_long),
            "workspace_starts must have dtype int32",
        ),
        Refusal(
            "starts rank",
            change("workspace_starts", lambda t: t[None]),
            "workspace_starts must have 1 dimensions",
        ),
        Refusal(
            "starts stride",
            change("workspace_starts", every_second),
            "workspace_starts must have stride 1",
        ),
        Refusal("table dtype", change("block_table", to_long), "block_table must have dtype int32"),
        Refusal(
            "table too short",
            change("block_table", lambda t: t[:3]),
            r"block_table must have at least 4 element\(s\)",
        ),
    ),
    outputs=("dst",),
    hostile={
        "block_table": lambda args: args["src_cache"].size(0),
        "workspace_starts": lambda args: args["dst"].size(0) + 1,
    },
)
