"""Gathers and swaps on CPU beside index_select."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import kvops
from harness import Row
from paging import shuffled_block_table

WIDTH, BLOCK_SIZE = 576, 16
LENGTHS = [2048] * 16


def rows() -> Iterator[Row]:
    """16 requests of 2048 tokens, pages shuffled; and blocks of 32 KiB between two pools."""
    yield _gather("auto", 0.6)
    yield _gather("fp8", 0.35)
    yield _cp_gather()
    yield _upconvert()
    yield _indexer()
    yield _swap_blocks()
    yield _swap_blocks_batch()


class _Requests:
    """Block table, cumulative lengths and the source row of every gathered row."""

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table, self.pages = shuffled_block_table(LENGTHS, block_size, generator)
        self.rows = sum(LENGTHS)
        ends = torch.tensor([0, *LENGTHS], dtype=torch.int32).cumsum(0).to(torch.int32)
        self.cu_seq_lens = ends
        self.starts = ends[:-1].contiguous()
        self.seq_lens = torch.tensor(LENGTHS, dtype=torch.int32)
        self.token_to_seq = torch.repeat_interleave(
            torch.arange(len(LENGTHS), dtype=torch.int32), self.seq_lens
        )
        slots = self.table[:, :, None].long() * block_size + torch.arange(block_size)
        self.source_rows = torch.cat(
            [row.reshape(-1)[:n] for row, n in zip(slots, LENGTHS, strict=True)]
        )


def _gather(kind: str, target: float) -> Row:
    r = _Requests()
    dtype = torch.bfloat16 if kind == "auto" else torch.uint8
    cache = torch.randint(0, 100, (r.pages, BLOCK_SIZE, WIDTH)).to(dtype)
    dst, one = torch.empty(r.rows, WIDTH, dtype=torch.bfloat16), torch.ones(1)
    flat = cache.view(-1, WIDTH)

    def index_select() -> None:
        picked = flat.index_select(0, r.source_rows)
        dst.copy_(picked if kind == "auto" else picked.view(torch.float8_e4m3fn).float() * one)

    return Row(
        name=f"gather_and_maybe_dequant_cache, 16 x 2048 x {WIDTH}, {kind}",
        bytes=cache.nbytes + dst.nbytes,
        run=lambda: kvops.gather_and_maybe_dequant_cache(
            *(cache, dst, r.table, r.cu_seq_lens, r.token_to_seq, r.rows, kind, one, None)
        ),
        peers={"index_select": index_select},
        target_fraction=target,
        target_speedup=1.0,
    )


def _cp_gather() -> Row:
    r = _Requests()
    cache = torch.randn(r.pages, BLOCK_SIZE, WIDTH).bfloat16()
    dst = torch.empty(r.rows, WIDTH, dtype=torch.bfloat16)
    flat = cache.view(-1, WIDTH)
    return Row(
        name=f"cp_gather_cache, 16 x 2048 x {WIDTH}",
        bytes=2 * dst.nbytes,
        run=lambda: kvops.cp_gather_cache(cache, dst, r.table, r.cu_seq_lens, len(LENGTHS), None),
        peers={"index_select": lambda: torch.index_select(flat, 0, r.source_rows, out=dst)},
        target_fraction=0.6,
        target_speedup=1.0,
    )


def _upconvert() -> Row:
    r = _Requests(block_size=64)
    cache = torch.randint(0, 100, (r.pages, 64, 656), dtype=torch.uint8)
    dst = torch.empty(r.rows, 576, dtype=torch.bfloat16)
    return Row(
        name="cp_gather_and_upconvert_fp8_kv_cache, 16 x 2048",
        bytes=cache.nbytes + dst.nbytes,
        run=lambda: kvops.cp_gather_and_upconvert_fp8_kv_cache(
            cache, dst, r.table, r.seq_lens, r.starts, len(LENGTHS)
        ),
        target_fraction=0.35,
    )


def _indexer() -> Row:
    r = _Requests(block_size=64)
    cache = torch.randint(0, 100, (r.pages, 64, 132), dtype=torch.uint8)
    dst_k = torch.empty(r.rows, 128, dtype=torch.uint8)
    dst_scale = torch.empty(r.rows, 4, dtype=torch.uint8)
    return Row(
        name="cp_gather_indexer_k_quant_cache, 16 x 2048",
        bytes=2 * cache.nbytes,
        run=lambda: kvops.cp_gather_indexer_k_quant_cache(
            cache, dst_k, dst_scale, r.table, r.cu_seq_lens
        ),
        target_fraction=0.35,
    )


def _swap_blocks() -> Row:
    blocks, block_bytes = 1024, 32768
    src = torch.randint(0, 100, (blocks, block_bytes), dtype=torch.uint8)
    dst = torch.empty_like(src)
    mapping = torch.stack([torch.randperm(blocks), torch.randperm(blocks)], dim=1)
    picked = mapping[:, 0].contiguous(), mapping[:, 1].contiguous()
    return Row(
        name="swap_blocks, 1024 x 32 KiB",
        bytes=2 * src.nbytes,
        run=lambda: kvops.swap_blocks(src, dst, block_bytes, mapping),
        peers={"index_put_": lambda: dst.index_put_((picked[1],), src[picked[0]])},
        target_fraction=0.6,
        target_speedup=1.0,
    )


def _swap_blocks_batch() -> Row:
    blocks, block_bytes = 8192, 4096
    src = torch.randint(0, 100, (blocks, block_bytes), dtype=torch.uint8)
    dst = torch.empty_like(src)
    sizes = torch.full((blocks,), block_bytes, dtype=torch.int64)
    src_ptrs = src.data_ptr() + torch.randperm(blocks) * block_bytes
    dst_ptrs = dst.data_ptr() + torch.randperm(blocks) * block_bytes
    return Row(
        name="swap_blocks_batch, 8192 x 4 KiB",
        bytes=2 * src.nbytes,
        # The defaults keep the tensors behind the addresses alive.
        run=lambda keep=(src, dst): kvops.swap_blocks_batch(src_ptrs, dst_ptrs, sizes),
        target_fraction=0.6,
    )
