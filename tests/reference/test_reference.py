"""Hand-computed examples of the cache operators of the reference (attention: test_attention.py)."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kvops import reference
from kvops.reference import REFERENCE

POISON = 0x5A
ONE = torch.ones(1)


def poisoned(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    size_bytes = math.prod(shape) * dtype.itemsize
    return torch.full([size_bytes], POISON, dtype=torch.uint8).view(dtype).reshape(shape)


def slots(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def int32(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_arguments_are_those_of_the_schema(name: str) -> None:
    schema = getattr(torch.ops.kvops, name).default._schema
    parameters = inspect.signature(REFERENCE[name]).parameters.values()
    positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == [argument.name for argument in schema.arguments]


class TestReshapeAndCache:
    def test_layout_and_skipped_slots(self) -> None:
        key = torch.arange(12, dtype=torch.float32).reshape(3, 1, 4)
        key_cache = poisoned(2, 1, 2, 2, 2, dtype=torch.float32)
        value_cache = poisoned(2, 1, 4, 2, dtype=torch.float32)
        untouched = key_cache.clone()
        reference.reshape_and_cache(
            key, key + 100, key_cache, value_cache, slots(3, -1, 4), "auto", ONE, ONE
        )
        assert key_cache[1, 0, :, 1].tolist() == [[0, 1], [2, 3]]
        assert value_cache[1, 0, :, 1].tolist() == [100, 101, 102, 103]
        key_cache[1, 0, :, 1] = untouched[1, 0, :, 1]
        assert torch.equal(key_cache, untouched)

    def test_fp8_divides_by_the_scale(self) -> None:
        key = torch.tensor([[[2.0, -2.0]]], dtype=torch.bfloat16)
        key_cache, value_cache = poisoned(1, 1, 1, 1, 2), poisoned(1, 1, 2, 1)
        reference.reshape_and_cache(key, key, key_cache, value_cache, slots(0), "fp8", 2 * ONE, ONE)
        assert key_cache.flatten().tolist() == [0x38, 0xB8]
        assert value_cache.flatten().tolist() == [0x40, 0xC0]


class TestReshapeAndCacheFlash:
    def test_hnd_view_and_scale_per_head(self) -> None:
        key = torch.full([1, 2, 3], 2.0, dtype=torch.float16)
        stored = poisoned(2, 2, 4, 3)  # blocks, heads, tokens of a block, head size
        cache = stored.permute(0, 2, 1, 3)
        scales = torch.tensor([1.0, 2.0])
        reference.reshape_and_cache_flash(
            key, key, cache, poisoned(2, 4, 2, 3), slots(6), "fp8_e5m2", scales, scales
        )
        assert stored[1, :, 2].tolist() == [[0x40] * 3, [0x3C] * 3]
        assert (stored == POISON).sum() == stored.numel() - 6

    def test_auto_copies_bits(self) -> None:
        key = torch.tensor([[[0x7F81, 0x0001]]], dtype=torch.int16).view(torch.bfloat16)
        cache = poisoned(1, 1, 1, 2, dtype=torch.bfloat16)
        reference.reshape_and_cache_flash(key, key, cache, cache, slots(0), "auto", ONE, ONE)
        assert cache.view(torch.int16).flatten().tolist() == [0x7F81, 0x0001]


class TestConvertFp8:
    def test_both_directions(self) -> None:
        values = torch.tensor([1.0, 448.0, -2.0])
        stored, loaded = poisoned(3), poisoned(3, dtype=torch.float32)
        reference.convert_fp8(stored, values, 2.0, "fp8")
        assert stored.tolist() == [0x30, 0x76, 0xB8]
        reference.convert_fp8(loaded, stored, 2.0, "fp8_e4m3")
        assert torch.equal(loaded, values)

    @pytest.mark.parametrize("kind", ["auto", "fp8_e5m2"])
    def test_refuses_other_kinds(self, kind: str) -> None:
        with pytest.raises(RuntimeError, match="Unsupported data type"):
            reference.convert_fp8(poisoned(1), torch.ones(1), 1.0, kind)

    def test_refuses_two_byte_tensors(self) -> None:
        with pytest.raises(RuntimeError, match="must be float32"):
            reference.convert_fp8(poisoned(1), poisoned(1), 1.0, "fp8")


class TestConcatAndCacheMla:
    def test_plain(self) -> None:
        kv_c, k_pe = torch.tensor([[1.0, 2.0], [8.0, 8.0]]), torch.tensor([[4.0], [8.0]])
        cache = poisoned(1, 2, 3)
        reference.concat_and_cache_mla(kv_c, k_pe, cache, slots(1, -1), "fp8", 2 * ONE)
        assert cache.tolist() == [[[POISON] * 3, [0x30, 0x38, 0x40]]]

    def test_fp8_ds_mla_entry(self) -> None:
        kv_c = torch.zeros(1, 512, dtype=torch.bfloat16)
        kv_c[0, 0], kv_c[0, 1] = 448, -1  # tile 0: scale 1
        kv_c[0, 128], kv_c[0, 129] = float("nan"), 896  # tile 1: scale 2; tiles 2, 3: nothing
        k_pe = torch.arange(64, dtype=torch.bfloat16)[None]
        cache = poisoned(1, 1, 656)
        reference.concat_and_cache_mla(kv_c, k_pe, cache, slots(0), "fp8_ds_mla", ONE)
        entry = cache[0, 0]
        assert entry[[0, 1, 2, 128, 129, 130]].tolist() == [0x7E, 0xB8, 0, 0x7F, 0x7E, 0]
        flt_min = torch.finfo(torch.float32).tiny
        assert entry[512:528].view(torch.float32).tolist() == [1.0, 2.0, flt_min, flt_min]
        assert torch.equal(entry[528:].view(torch.bfloat16), k_pe[0])

    def test_fp8_ds_mla_refuses_half(self) -> None:
        kv_c, k_pe = torch.zeros(1, 512).half(), torch.zeros(1, 64).half()
        with pytest.raises(RuntimeError, match="must be bfloat16"):
            reference.concat_and_cache_mla(
                kv_c, k_pe, poisoned(1, 1, 656), slots(0), "fp8_ds_mla", ONE
            )


class TestConcatAndCacheMlaRopeFused:
    """Position 1 turns by a right angle: (x, y) becomes (-y, x)."""

    @pytest.mark.parametrize(
        ("is_neox", "rotated"), [(True, [-3, -4, 1, 2]), (False, [-2, 1, -4, 3])]
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_rotation(self, dtype: torch.dtype, is_neox: bool, rotated: list[int]) -> None:
        cos_sin = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=dtype)
        row = torch.tensor([1, 2, 3, 4], dtype=dtype)
        # Token 0 is written; token 1 has no slot; token 2 has no such position.
        q_pe, k_pe = row.repeat(3, 1, 1), row.repeat(3, 1)
        kv_c, cache = torch.full([3, 1], 7.0, dtype=dtype), poisoned(1, 2, 5, dtype=dtype)
        untouched = cache[0, 1].clone()
        reference.concat_and_cache_mla_rope_fused(
            slots(1, 1, 2), q_pe, k_pe, kv_c, cos_sin, is_neox, slots(0, -1, 1), cache, "auto", ONE
        )
        assert q_pe[:, 0].tolist() == [rotated, [1, 2, 3, 4], [1, 2, 3, 4]]
        assert k_pe.tolist() == q_pe[:, 0].tolist()
        assert cache[0, 0].tolist() == [7, *rotated]
        assert torch.equal(cache[0, 1], untouched)

    @pytest.mark.parametrize(
        ("dtype", "x", "y", "cos", "sin", "rotated_x", "rotated_y"),
        [
            # 2047 * 1.0009765625 = 2048.999 rounds to 2048 in float16; 2047.999 would give 2048.
            (torch.float16, 2047, 1, 1.0009765625, 1, 2047, 2048),
            # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 does not fit float32, the fused difference does.
            (torch.float32, 1 + 2**-12, 1 + 2**-11, 1 + 2**-12, 1, 2**-24, None),
            (torch.float32, 1 + 2**-12, -1 - 2**-11, 1, 1 + 2**-12, None, 2**-24),
        ],
        ids=["half rounds every step", "fused x'", "fused y'"],
    )
    def test_rounding(
        self,
        dtype: torch.dtype,
        x: float,
        y: float,
        cos: float,
        sin: float,
        rotated_x: float | None,
        rotated_y: float | None,
    ) -> None:
        q_pe = torch.tensor([[[x, y]]], dtype=dtype)
        cos_sin, kv_c = torch.tensor([[cos, sin]], dtype=dtype), torch.zeros(1, 1, dtype=dtype)
        cache = poisoned(1, 1, 3, dtype=dtype)
        reference.concat_and_cache_mla_rope_fused(
            slots(0), q_pe, q_pe[:, 0].clone(), kv_c, cos_sin, True, slots(0), cache, "auto", ONE
        )
        for rotated, expected in zip(q_pe.flatten().tolist(), (rotated_x, rotated_y), strict=True):
            assert expected is None or rotated == expected


def test_concat_mla_q() -> None:
    nope = torch.arange(4.0).reshape(2, 1, 2)
    rope = torch.tensor([[[8.0]], [[9.0]]])
    out = poisoned(2, 1, 3, dtype=torch.float32)
    reference.concat_mla_q(nope, rope, out)
    assert out.tolist() == [[[0, 1, 8]], [[2, 3, 9]]]


class TestIndexer:
    @pytest.mark.parametrize(
        ("scale_format", "scale", "byte"), [("auto", 450 / 448, 0x7E), ("ue8m0", 2.0, 0x76)]
    )
    def test_rows_then_scales(self, scale_format: str, scale: float, byte: int) -> None:
        """450 / s is 448 with the plain scale; with s = 2 it is 225, nearest to 224."""
        k = torch.full([2, 128], 450.0, dtype=torch.bfloat16)
        cache = poisoned(1, 3, 132)
        reference.indexer_k_quant_and_cache(k, cache, slots(2, -1), 128, scale_format)
        flat = cache.flatten()
        assert flat[256:384].tolist() == [byte] * 128
        stored_scale = flat[384 + 8 : 384 + 12].view(torch.float32)
        assert torch.equal(stored_scale, torch.tensor([scale], dtype=torch.float32))
        assert (flat == POISON).sum() == flat.numel() - 132

    def test_zeros_get_the_smallest_scale(self) -> None:
        cache = poisoned(1, 1, 132)
        reference.indexer_k_quant_and_cache(
            torch.zeros(1, 128, dtype=torch.bfloat16), cache, slots(0), 128, "auto"
        )
        assert cache[0, 0, :128].tolist() == [0] * 128
        smallest = torch.tensor([1e-4]) / torch.tensor([448.0])
        assert torch.equal(cache[0, 0, 128:].view(torch.float32), smallest)

    def test_gather(self) -> None:
        cache = torch.randint(256, [3, 2, 132], generator=torch.manual_seed(0), dtype=torch.uint8)
        dst_k, dst_scale = poisoned(5, 128), poisoned(5, 4)
        # Request 0: one token of block 2. Request 1: block 0, then a block that does not exist.
        reference.cp_gather_indexer_k_quant_cache(
            cache, dst_k, dst_scale, int32([2, -5], [0, 3]), int32(0, 1, 4)
        )
        blocks = cache.reshape(3, 264)
        for row, (block, offset) in enumerate([(2, 0), (0, 0), (0, 1)]):
            assert torch.equal(dst_k[row], blocks[block, 128 * offset :][:128])
            assert torch.equal(dst_scale[row], blocks[block, 256 + 4 * offset :][:4])
        assert (dst_k[3:] == POISON).all()
        assert (dst_scale[3:] == POISON).all()

    def test_refuses_what_has_no_meaning(self) -> None:
        bf16 = torch.zeros(1, 128, dtype=torch.bfloat16)
        with pytest.raises(RuntimeError, match="must be bfloat16"):
            reference.indexer_k_quant_and_cache(bf16.half(), poisoned(1, 1, 132), slots(0), 128, "")
        with pytest.raises(RuntimeError, match="must be 128"):
            reference.indexer_k_quant_and_cache(bf16, poisoned(1, 1, 136), slots(0), 64, "")


class TestGathers:
    """Two requests over blocks of two tokens; entry (block, offset) holds 10 * block + offset."""

    SRC = (10 * torch.arange(4.0)[:, None] + torch.arange(2.0)).reshape(4, 2, 1)
    TABLE = int32([3, 1], [2, 4])  # block 4 does not exist
    CU_SEQ_LENS = int32(0, 3, 6)
    STAY = poisoned(1, dtype=torch.float32).item()

    @pytest.mark.parametrize(
        ("seq_starts", "rows"),
        [(None, [30, 31, 10, 20, 21, STAY]), (int32(1, -1), [31, 10, 11, STAY, 20, 21])],
    )
    def test_cp_gather_cache(self, seq_starts: Tensor | None, rows: list[float]) -> None:
        dst = poisoned(7, 1, dtype=torch.float32)
        reference.cp_gather_cache(self.SRC, dst, self.TABLE, self.CU_SEQ_LENS, 2, seq_starts)
        assert dst.flatten().tolist() == [*rows, self.STAY]

    @pytest.mark.parametrize(
        ("seq_starts", "rows"),
        [(None, [30, 31, 10, 20, 21, STAY]), (int32(1, -1), [31, 10, 11, STAY, 20, 21])],
    )
    def test_gather_and_maybe_dequant_cache(
        self, seq_starts: Tensor | None, rows: list[float]
    ) -> None:
        dst = poisoned(7, 1, dtype=torch.float32)
        token_to_seq = int32(0, 0, 0, 1, 1, 1, 2)  # request 2 does not exist
        reference.gather_and_maybe_dequant_cache(
            self.SRC, dst, self.TABLE, self.CU_SEQ_LENS, token_to_seq, 7, "auto", ONE, seq_starts
        )
        assert dst.flatten().tolist() == [*rows, self.STAY]

    def test_dequantisation_multiplies(self) -> None:
        src = torch.tensor([[[0x38, 0xC0, 0x7E]]], dtype=torch.uint8)  # 1, -2, 448
        dst = poisoned(1, 3, dtype=torch.bfloat16)
        reference.gather_and_maybe_dequant_cache(
            src, dst, int32([0]), int32(0, 1), int32(0), 1, "fp8", ONE / 2, None
        )
        assert dst.tolist() == [[0.5, -1.0, 224.0]]

    def test_cp_gather_and_upconvert_fp8_kv_cache(self) -> None:
        entry = torch.full([656], 0x38, dtype=torch.uint8)
        entry[512:528] = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(torch.uint8)
        rope = torch.arange(64, dtype=torch.bfloat16)
        entry[528:] = rope.view(torch.uint8)
        src = torch.stack([torch.zeros_like(entry), entry])[:, None]
        dst = poisoned(3, 576, dtype=torch.bfloat16)
        # Row 0 is before the first request; request 0 has row 1, request 1 has row 2.
        reference.cp_gather_and_upconvert_fp8_kv_cache(
            src, dst, int32([1], [-1]), int32(1, 1), int32(1, 2), 2
        )
        assert dst[1, :512].tolist() == [s for s in (1, 2, 3, 4) for _ in range(128)]
        assert torch.equal(dst[1, 512:], rope)
        assert (dst[[0, 2]].view(torch.uint8) == POISON).all()


class TestSwap:
    def test_blocks_in_order(self) -> None:
        pool = torch.arange(6, dtype=torch.int16)
        mapping = torch.tensor([[0, 1], [1, 2]])
        reference.swap_blocks(pool, pool, 4, mapping)
        assert pool.tolist() == [0, 1, 0, 1, 0, 1]

    @pytest.mark.parametrize("pair", [[0, 3], [3, 0], [-1, 0], [0, -1]])
    def test_bad_block_raises_before_writing(self, pair: list[int]) -> None:
        src, dst = torch.arange(6, dtype=torch.int16), poisoned(6, dtype=torch.int16)
        with pytest.raises(RuntimeError, match="is not inside"):
            reference.swap_blocks(src, dst, 4, torch.tensor([[0, 0], pair]))
        assert (dst.view(torch.uint8) == POISON).all()

    def test_batch(self) -> None:
        src, dst = torch.arange(8, dtype=torch.uint8), poisoned(8)
        reference.swap_blocks_batch(
            slots(src.data_ptr(), src.data_ptr() + 5, 0),
            slots(dst.data_ptr() + 6, dst.data_ptr(), 0),
            slots(2, 3, 0),
            True,
        )
        assert dst.tolist() == [5, 6, 7, POISON, POISON, POISON, 0, 1]

    def test_batch_refuses_bad_tables(self) -> None:
        with pytest.raises(RuntimeError, match="one length"):
            reference.swap_blocks_batch(slots(0), slots(0), slots())
        with pytest.raises(RuntimeError, match="negative"):
            reference.swap_blocks_batch(slots(0), slots(0), slots(-1))
