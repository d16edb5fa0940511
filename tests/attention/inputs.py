"""Problems for paged attention: arguments in which everything that must not be read is poison.

NaN: slots past the end of a sequence, blocks that no sequence has, outputs, gaps between strided
rows. Entries of the block table past the sequence are no block ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from golden_calls import RowError
from kvops.reference.numerics import E4M3, E5M2, encode_fp8
from registry import Args

PARTITION_TOKENS = 512
_DEAD_ENTRY = 2147480000
_FP8 = {"fp8": E4M3, "fp8_e4m3": E4M3, "fp8_e5m2": E5M2}
# Of the largest value of a row: as for recorded calls (tests/golden/README.md).
_ROW_FACTORS = {torch.bfloat16: 1.2e-2, torch.float16: 2e-3, torch.float32: 3e-6}
_FP32_OVER_FP8_FACTOR = 2e-3


@dataclass(frozen=True)
class BlockSparse:
    """The block-sparse arguments; by default block sparsity is off, as in vLLM."""

    tp_rank: int = 0
    blocksparse_local_blocks: int = 0
    blocksparse_vert_stride: int = 0
    blocksparse_block_size: int = 64
    blocksparse_head_sliding_step: int = 0


@dataclass(frozen=True)
class Problem:
    """One call of paged attention; `make` gives the arguments of version 1 in schema order."""

    seq_lens: tuple[int, ...]
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    kv_cache_dtype: str = "auto"
    x: int | None = None  # None: 16 bytes
    cache_dtype: torch.dtype | None = None  # None: uint8 for fp8
    alibi: bool = False
    sparse: BlockSparse = BlockSparse()
    k_scale: float = 1.0
    v_scale: float = 1.0
    spare_blocks: int = 3
    max_seq_len: int | None = None  # None: the longest sequence
    strided: bool = False  # every stride that may be free is

    def make(self, device: torch.device | str, generator: torch.Generator) -> Args:
        shape = [len(self.seq_lens), self.num_heads, self.head_size]
        query = torch.randn(shape, generator=generator).to(self.dtype)
        tables, num_blocks = self._block_tables(generator)
        keys, values = self._caches(tables, num_blocks, generator)
        slopes = torch.rand(self.num_heads, generator=generator) if self.alibi else None
        longest = max(self.seq_lens, default=0)
        args = {
            "out": self._padded(torch.full_like(query, torch.nan)),
            "query": self._padded(query),
            "key_cache": keys,
            "value_cache": values,
            "num_kv_heads": self.num_kv_heads,
            "scale": self.head_size**-0.5,
            "block_tables": tables,
            "seq_lens": torch.tensor(self.seq_lens, dtype=torch.int32),
            "block_size": self.block_size,
            "max_seq_len": longest if self.max_seq_len is None else self.max_seq_len,
            "alibi_slopes": slopes,
            "kv_cache_dtype": self.kv_cache_dtype,
            "k_scale": torch.tensor([self.k_scale]),
            "v_scale": torch.tensor(self.v_scale),
            **vars(self.sparse),
        }
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}

    def make_v2(
        self, device: torch.device | str, generator: torch.Generator, *, spare_partitions: int = 0
    ) -> Args:
        """The arguments of version 2, with scratch that has room for more than is needed."""
        args = self.make(device, generator)
        out = args.pop("out")
        partitions = -(-args["max_seq_len"] // PARTITION_TOKENS) + spare_partitions
        sums = torch.full([*out.shape[:2], partitions], torch.nan, device=device)
        tmp_out = torch.full([*sums.shape, self.head_size], torch.nan, dtype=self.dtype)
        scratch = {"exp_sums": sums, "max_logits": sums.clone(), "tmp_out": tmp_out.to(device)}
        return {"out": out, **scratch, **args}

    def change(self, **changes: Any) -> Problem:
        return replace(self, **changes)

    def _padded(self, rows: Tensor) -> Tensor:
        """Rows of [num_seqs, num_heads, head_size] with gaps, heads outermost, if strided."""
        if not self.strided:
            return rows
        seqs, heads, size = rows.shape
        wide = rows.new_full([heads + 1, seqs + 2, size + 5], torch.nan)
        view = wide.transpose(0, 1)[1 : seqs + 1, :heads, 3 : size + 3]
        return view.copy_(rows)

    def _block_tables(self, generator: torch.Generator) -> tuple[Tensor, int]:
        """A table with distinct blocks in random order, and how many blocks the cache has."""
        lengths = [-(-length // self.block_size) for length in self.seq_lens]
        num_blocks = sum(lengths) + self.spare_blocks
        order = torch.randperm(num_blocks, generator=generator).int()
        width = max(lengths, default=0) + 1
        wide = torch.full([len(lengths), width + 3], _DEAD_ENTRY, dtype=torch.int32)
        tables = wide[:, 2 : 2 + width] if self.strided else wide[:, :width].clone()
        for row, blocks in zip(tables, order.split([*lengths, self.spare_blocks]), strict=False):
            row[: len(blocks)] = blocks
        return tables, num_blocks

    def _caches(
        self, tables: Tensor, num_blocks: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        heads, size, block = self.num_kv_heads, self.head_size, self.block_size
        # [num_blocks, block_size, num_kv_heads, head_size], first keys, then values
        tokens = torch.full([2, num_blocks, block, heads, size], torch.nan)
        for row, length in zip(tables, self.seq_lens, strict=True):
            for position in range(0, length, block):
                filled = min(block, length - position)
                tokens[:, row[position // block], :filled] = torch.randn(
                    2, filled, heads, size, generator=generator
                )
        keys, values = (self._stored(t, s) for t, s in zip(tokens, self._scales(), strict=True))
        x = self.x or 16 // keys.element_size()
        keys = keys.view(num_blocks, block, heads, size // x, x).permute(0, 2, 3, 1, 4)
        return self._paged(keys), self._paged(values.permute(0, 2, 3, 1))

    def _scales(self) -> tuple[float, float]:
        return self.k_scale, self.v_scale

    def _stored(self, tokens: Tensor, scale: float) -> Tensor:
        if self.kv_cache_dtype in _FP8:
            stored = encode_fp8(tokens / scale, _FP8[self.kv_cache_dtype])
            return stored if self.cache_dtype is None else stored.view(self.cache_dtype)
        return tokens.to(self.dtype)

    def _paged(self, pages: Tensor) -> Tensor:
        """The same elements; if strided, with KV heads outermost and gaps between pages."""
        if not self.strided:
            return pages.contiguous()
        blocks, heads, *page = pages.shape
        elems = pages[0, 0].numel()
        bits = pages.contiguous().view(_BITS[pages.element_size()])
        wide = torch.full([heads, blocks, elems + 16], -1, dtype=torch.int64).to(bits.dtype)
        view = wide[:, :, :elems].unflatten(2, page).transpose(0, 1)
        view.copy_(bits)
        return view.view(pages.dtype)


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def compare(name: str, actual: Tensor, expected: Tensor, args: Args) -> None:
    """Per row of `out`, the error that the recorded calls allow; for v2's sums, per element."""
    factor = _ROW_FACTORS[args["query"].dtype]
    is_fp8 = args["key_cache"].element_size() == 1
    if is_fp8 and args["query"].dtype == torch.float32:
        factor = _FP32_OVER_FP8_FACTOR
    if name != "out":
        # fp32 for every dtype, but the reference rounds fp8 keys to the query's dtype.
        factor = factor if is_fp8 else 1e-5
    if args["alibi_slopes"] is not None and args["seq_lens"].numel() > 0:
        # Both sides round logits in fp32, and weights err as logits do. Block sparsity may hide
        # all tokens that are near, so that all logits are as large as the farthest one's.
        tokens = min(int(args["seq_lens"].max()), args["block_tables"].size(1) * args["block_size"])
        factor += 2**-23 * tokens * float(args["alibi_slopes"].abs().max())
    problem = RowError(factor, per_element=name != "out").mismatch(actual, expected)
    assert problem is None, f"{name}: {problem}"
