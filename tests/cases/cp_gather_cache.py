"""Cases of cp_gather_cache: entries of several shapes and dtypes, ragged requests, views."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change, every_second, to_long
from gather.paged import make_requests, packed_cache, poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample


def sample(
    sample_id: str,
    dtype: torch.dtype,
    lengths: Sequence[int],
    *,
    entry: Sequence[int] = (40,),
    block_size: int = 16,
    starts: Sequence[int] | None = None,
    spare_rows: int = 0,
    packed: bool = False,
    flat_rows: bool = False,
    padded_batch: int = 0,
) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        requests = make_requests(lengths, block_size, generator, starts)
        cache = random_bits([requests.num_blocks, block_size, *entry], dtype, generator)
        row = [torch.Size(entry).numel()] if flat_rows else list(entry)
        row_gap = 1 if packed else 0
        dst = poisoned([requests.num_rows + spare_rows, 1 + row_gap, *row], dtype)[:, 0]
        return {
            "src_cache": (packed_cache(cache) if packed else cache).to(device),
            "dst": dst.to(device),
            "block_table": requests.block_table.to(device),
            "cu_seq_lens": requests.cu_seq_lens.to(device),
            "batch_size": len(lengths) - padded_batch,
            "seq_starts": None if starts is None else requests.seq_starts.to(device),
        }

    return Sample(sample_id, make)


CASE = OpCase(
    name="cp_gather_cache",
    samples=(
        sample("bfloat16-576", torch.bfloat16, [17, 1, 0, 40], entry=(576,)),
        sample(
            "uint8-656-starts", torch.uint8, [17, 1, 0, 40], entry=(656,), starts=[5, 0, 31, 16]
        ),
        sample("float32-heads", torch.float32, [3, 9], entry=(2, 5), block_size=4),
        sample("float32-flat-rows", torch.float32, [3, 9], entry=(2, 5), flat_rows=True),
        sample("float16-packed", torch.float16, [20, 13], starts=[1, 2], packed=True),
        sample("float8-1-wide-1-per-block", torch.float8_e4m3fn, [3, 2], entry=(1,), block_size=1),
        sample("int64", torch.int64, [5, 6], entry=(3,), block_size=3),
        sample("spare-rows", torch.bfloat16, [4, 5], spare_rows=3),
        # CUDA has another kernel for more requests than a warp has lanes.
        sample("many-requests", torch.int32, [9, 0, 3] * 12, entry=(16,), starts=[1, 0, 7] * 12),
        sample("padded-batch", torch.bfloat16, [4, 5, 6], padded_batch=1),
        sample("one-token", torch.float32, [1]),
        sample("no-token", torch.float32, [0, 0]),
        sample("no-request", torch.float32, []),
    ),
    refusals=(
        Refusal(
            "cache rank",
            change("src_cache", lambda t: t[0, 0]),
            "src_cache must have at least 2 dimension",
        ),
        Refusal(
            "row width", change("dst", lambda t: t[:, 1:]), "dst must have rows of 576 elements"
        ),
        Refusal(
            "dst dtype",
            change("dst", torch.Tensor.half),
            "dst must have dtype bfloat16 like src_cache",
        ),
        Refusal(
            "16-byte elements",
            lambda args: args.update(
                {name: args[name].to(torch.complex128) for name in ("src_cache", "dst")}
            ),
            "src_cache must have elements of at most 8 bytes, got dtype complex128",
        ),
        Refusal("entry gaps", change("src_cache", every_second), "src_cache must have stride 1"),
        Refusal("row gaps", change("dst", every_second), "dst must have stride 1"),
        Refusal(
            "overlapping rows",
            change("dst", lambda t: t[0].expand(t.shape)),
            "dst must have rows that do not overlap",
        ),
        Refusal("table dtype", change("block_table", to_long), "block_table must have dtype int32"),
        Refusal(
            "table rank",
            change("block_table", lambda t: t[0]),
            "block_table must have 2 dimensions",
        ),
        Refusal(
            "table too short",
            change("block_table", lambda t: t[:3]),
            r"block_table must have at least 4 element\(s\) in dimension 0, got shape \[3,",
        ),
        Refusal(
            "table stride", change("block_table", every_second), "block_table must have stride 1"
        ),
        Refusal(
            "lengths dtype", change("cu_seq_lens", to_long), "cu_seq_lens must have dtype int32"
        ),
        Refusal(
            "lengths rank",
            change("cu_seq_lens", lambda t: t[None]),
            "cu_seq_lens must have 1 dimensions",
        ),
        Refusal(
            "lengths stride", change("cu_seq_lens", every_second), "cu_seq_lens must have stride 1"
        ),
        Refusal(
            "no lengths",
            change("cu_seq_lens", lambda t: t[:0]),
            r"cu_seq_lens must have at least 1 element\(s\)",
        ),
        Refusal(
            "batch larger than lengths",
            change("batch_size", lambda n: n + 1),
            r"batch_size must be in \[0, 4\], the requests of cu_seq_lens, got 5",
        ),
        Refusal(
            "negative batch", change("batch_size", lambda n: -1), "batch_size must be in .* -1"
        ),
        Refusal(
            "starts dtype",
            change("seq_starts", to_long),
            "seq_starts must have dtype int32",
            sample="uint8-656-starts",
        ),
        Refusal(
            "starts too short",
            change("seq_starts", lambda t: t[:3]),
            r"seq_starts must have at least 4 element\(s\)",
            sample="uint8-656-starts",
        ),
    ),
    outputs=("dst",),
    hostile={
        "block_table": lambda args: args["src_cache"].size(0),
        "cu_seq_lens": lambda args: args["dst"].size(0) + 1,
        "seq_starts": lambda args: args["block_table"].size(1) * args["src_cache"].size(1),
    },
)
