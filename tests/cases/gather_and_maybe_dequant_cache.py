"""Cases of gather_and_maybe_dequant_cache: every dtype and kind, odd widths, strided views."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change, every_second, to_long
from gather.paged import make_requests, packed_cache, poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample


def sample(
    sample_id: str,
    dst_dtype: torch.dtype,
    kind: str = "auto",
    *,
    lengths: Sequence[int] = (17, 1, 0, 40),
    cache_dtype: torch.dtype | None = None,
    width: int = 576,
    block_size: int = 16,
    starts: Sequence[int] | None = None,
    scale: float = 0.1,
    extra_rows: int = 0,
    uncovered_tokens: int = 0,
    packed: bool = False,
) -> Sample:
    """`extra_rows` of dst lie behind num_tokens; `uncovered_tokens` belong to no request."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        requests = make_requests(lengths, block_size, generator, starts)
        stored = cache_dtype or (torch.uint8 if kind.startswith("fp8") else dst_dtype)
        cache = random_bits([requests.num_blocks, block_size, width], stored, generator)
        num_tokens = requests.num_rows + uncovered_tokens
        row_gap = 1 if packed else 0
        dst = poisoned([num_tokens + extra_rows, 1 + row_gap, width], dst_dtype)[:, 0]
        uncovered = torch.zeros(uncovered_tokens, dtype=torch.int32)
        return {
            "src_cache": (packed_cache(cache) if packed else cache).to(device),
            "dst": dst.to(device),
            "block_table": requests.block_table.to(device),
            "cu_seq_lens": requests.cu_seq_lens.to(device),
            "token_to_seq": torch.cat([requests.token_to_seq, uncovered]).to(device),
            "num_tokens": num_tokens,
            "kv_cache_dtype": kind,
            "scale": torch.tensor([scale], device=device),
            "seq_starts": None if starts is None else requests.seq_starts.to(device),
        }

    return Sample(sample_id, make)


_BF16, _HALF, _FLOAT = torch.bfloat16, torch.float16, torch.float32
_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_STARTS = (5, 0, 31, 16)

CASE = OpCase(
    name="gather_and_maybe_dequant_cache",
    samples=(
        sample("bfloat16", _BF16),
        sample("float16-starts", _HALF, "float16", starts=_STARTS),
        sample("float32-320", _FLOAT, width=320, block_size=64),
        sample("bfloat16-fp8", _BF16, "fp8"),
        sample("float16-fp8-starts", _HALF, "fp8_e4m3", cache_dtype=_E4M3, starts=_STARTS),
        # CUDA has another kernel for more requests than a warp has lanes.
        sample("bfloat16-e4m3-many-requests", _BF16, "fp8_e4m3", lengths=[9, 0, 3] * 12),
        sample(
            "bfloat16-many-requests",
            _BF16,
            "bfloat16",
            lengths=[9, 0, 3] * 12,
            starts=[1, 0, 7] * 12,
        ),
        sample("float32-fp8-packed", _FLOAT, "fp8", width=77, packed=True, scale=-3.7),
        sample("bfloat16-e5m2-packed", _BF16, "fp8_e5m2", width=77, packed=True),
        sample("float16-e5m2", _HALF, "fp8_e5m2", cache_dtype=_E5M2, width=33, block_size=5),
        sample("float32-e5m2", _FLOAT, "fp8_e5m2", width=16),
        sample("one-per-block", _BF16, "fp8", lengths=(3, 4), width=15, block_size=1),
        sample("extra-rows", _BF16, "fp8", lengths=(5, 6), width=40, extra_rows=4),
        sample("uncovered", _BF16, lengths=(5, 6), width=40, uncovered_tokens=3, packed=True),
        sample("scale-nan", _HALF, "fp8", lengths=(3,), width=64, scale=float("nan")),
        sample("scale-tiny", _FLOAT, "fp8", lengths=(3,), width=64, scale=1e-44),
        sample("one-token", _FLOAT, lengths=(1,), width=1),
        sample("no-token", _BF16, "fp8", lengths=(0, 0)),
        sample("no-request", _BF16, lengths=()),
    ),
    refusals=(
        Refusal(
            "kind",
            change("kv_cache_dtype", lambda _: "fp8_ds_mla"),
            "kv_cache_dtype must be one of auto, .*; got 'fp8_ds_mla'",
        ),
        Refusal(
            "dst dtype", change("dst", torch.Tensor.double), "dst must have dtype one of float32"
        ),
        Refusal(
            "cache dtype",
            change("src_cache", torch.Tensor.half),
            "src_cache must have dtype bfloat16",
        ),
        Refusal(
            "fp8 cache of two bytes",
            change("src_cache", torch.Tensor.bfloat16),
            "src_cache must have dtype one of uint8, float8_e4m3fn",
            sample="bfloat16-fp8",
        ),
        Refusal(
            "cache of the other fp8",
            change("src_cache", lambda t: t.view(_E5M2)),
            "src_cache must have dtype one of uint8, float8_e4m3fn",
            sample="bfloat16-fp8",
        ),
        Refusal(
            "cache rank", change("src_cache", lambda t: t[0, 0]), "src_cache must have 3 dimensions"
        ),
        Refusal(
            "row width",
            change("dst", lambda t: t[:, 1:]),
            r"dst must have shape \[\*, 576\], got \[58, 575\]",
        ),
        Refusal("entry gaps", change("src_cache", every_second), "src_cache must have stride 1"),
        Refusal("row gaps", change("dst", every_second), "dst must have stride 1"),
        Refusal(
            "overlapping rows",
            change("dst", lambda t: t[0].expand(t.shape)),
            "dst must have rows that do not overlap",
        ),
        Refusal(
            "too many tokens",
            change("num_tokens", lambda n: n + 1),
            r"num_tokens must be in \[0, 58\], the rows of dst, got 59",
        ),
        Refusal(
            "negative tokens", change("num_tokens", lambda n: -1), "num_tokens must be in .* -1"
        ),
        Refusal(
            "token_to_seq too short",
            change("token_to_seq", lambda t: t[1:]),
            r"token_to_seq must have at least 58 element\(s\)",
        ),
        Refusal(
            "token_to_seq dtype", change("token_to_seq", to_long), "token_to_seq must have dtype"
        ),
        Refusal("table dtype", change("block_table", to_long), "block_table must have dtype int32"),
        Refusal(
            "table too short",
            change("block_table", lambda t: t[:3]),
            r"block_table must have at least 4 element\(s\)",
        ),
        Refusal(
            "lengths dtype", change("cu_seq_lens", to_long), "cu_seq_lens must have dtype int32"
        ),
        Refusal(
            "no lengths",
            change("cu_seq_lens", lambda t: t[:0]),
            r"cu_seq_lens must have at least 1 element\(s\)",
        ),
        Refusal(
            "starts too short",
            change("seq_starts", lambda t: t[:3]),
            r"seq_starts must have at least 4 element\(s\)",
            sample="float16-starts",
        ),
        Refusal(
            "scale dtype",
            change("scale", torch.Tensor.double),
            "scale must have dtype float32",
            sample="bfloat16-fp8",
        ),
        Refusal(
            "two scales",
            change("scale", lambda t: t.repeat(2)),
            r"scale must have 1 element\(s\)",
            sample="bfloat16-fp8",
        ),
    ),
    outputs=("dst",),
    hostile={
        "block_table": lambda args: args["src_cache"].size(0),
        "cu_seq_lens": lambda args: args["dst"].size(0) + 1,
        "token_to_seq": lambda args: args["cu_seq_lens"].size(0) - 1,
        "seq_starts": lambda args: args["block_table"].size(1) * args["src_cache"].size(1),
    },
)
