"""Random calls of every operator: kinds, dtypes, shapes, strides and indices drawn from one number.

`random_sample` gives a sample as the case files have them, so the same arguments can be made on
any device; `spoil` puts indices into a call that are out of range, or in range but unexpected.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor

import cases.concat_and_cache_mla
import cases.concat_and_cache_mla_rope_fused
import cases.concat_mla_q
import cases.convert_fp8
import cases.cp_gather_and_upconvert_fp8_kv_cache
import cases.cp_gather_cache
import cases.cp_gather_indexer_k_quant_cache
import cases.gather_and_maybe_dequant_cache
import cases.indexer_k_quant_and_cache
import cases.paged_attention_v2
import cases.reshape_and_cache
import cases.reshape_and_cache_flash
import cases.transfer_embedding_ranges_direct
from attention.inputs import BlockSparse, Problem
from cases.merge_attn_states import States
from gather.paged import poisoned, random_bits
from hostile import hostile_values, index_arguments
from registry import UNBOUNDED, Args, Sample
from support import Call
from transfer.inputs import DIRECT_LISTS, KERNEL_LAYOUTS, Shape, direct_sample, kernel_sample

_BF16, _HALF, _FLOAT = torch.bfloat16, torch.float16, torch.float32
DTYPES = (_BF16, _HALF, _FLOAT)
FP8 = ("fp8", "fp8_e4m3", "fp8_e5m2")
_DS_MLA = ("fp8_ds_mla", "fp8_ds_mla_pow2")
_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def random_sample(name: str, random: Random) -> Sample:
    return _SAMPLES[name](random)


def spoil(call: Call, random: Random) -> None:
    """Overwrite a few entries of a random index argument, in place."""
    names = index_arguments(call)
    if not names:
        return
    name = random.choice(names)
    entries = call.args[name]
    if entries.numel() == 0:
        return
    values = hostile_values(call.case, call, name)
    # Two tokens with one slot are a race; blocks that no sequence has hold NaN.
    if name not in ("slot_mapping", "block_tables", "dst_indices"):
        limit = call.case.hostile[name](call.args)
        values += [] if limit == UNBOUNDED else [random.randrange(max(1, limit))]
    for _ in range(random.randint(1, 3)):
        place = tuple(random.randrange(size) for size in entries.shape)
        entries[place] = random.choice(values)


def _flag(random: Random) -> bool:
    return random.random() < 0.5


def _lengths(random: Random, longest: int = 70) -> list[int]:
    """Of requests: mostly short, some empty."""
    return [random.choice([0, 1, random.randint(0, longest)]) for _ in range(random.randint(0, 6))]


def _starts(random: Random, lengths: list[int]) -> list[int] | None:
    return [random.randint(0, 40) for _ in lengths] if lengths and _flag(random) else None


def _block_size(random: Random) -> int:
    return random.choice([1, 2, 7, 8, 16, 32, 64])


def _tokens_in(random: Random, num_slots: int) -> int:
    return random.randint(0, min(num_slots, random.choice([3, 40, 300])))


def _stored(kind: str, random: Random) -> torch.dtype | None:
    """The dtype of a cache: bytes or, now and then, what they stand for."""
    if not kind.startswith("fp8") or _flag(random):
        return None
    return _E5M2 if kind == "fp8_e5m2" else _E4M3


def _reshape_and_cache(random: Random) -> Sample:
    kind, dtype = random.choice(["auto", *FP8]), random.choice(DTYPES)
    x = random.choice([1, 2, 4, 5, 8, 16])
    block_size = _block_size(random)
    return cases.reshape_and_cache.sample(
        kind,
        dtype,
        tokens=random.choice([0, 1, 5, random.randint(0, 200)]),
        heads=random.choice([1, 2, 3, 8, 13]),
        head_size=x * random.randint(1, 16),
        block_size=block_size,
        x=x,
        views=_flag(random),
        scattered=_flag(random),
        stored=_stored(kind, random),
        interleaved_v=random.choice([None, False, block_size % x == 0]),
    )


def _reshape_and_cache_flash(random: Random) -> Sample:
    kind, dtype = random.choice(["auto", *FP8]), random.choice(DTYPES)
    size = random.choice([1, 9, 46, 64, 80, 128, 192, 256])
    return cases.reshape_and_cache_flash.sample(
        kind,
        dtype,
        tokens=random.choice([0, 1, 5, random.randint(0, 200)]),
        heads=random.choice([1, 2, 3, 8, 13]),
        sizes=(size, random.choice([size, random.randint(1, 130)])),
        block_size=_block_size(random),
        layout=random.choice(["NHD", "HND"]),
        views=_flag(random),
        per_head=_flag(random),
        scattered=_flag(random),
        stored=_stored(kind, random),
    )


def _convert_fp8(random: Random) -> Sample:
    shape = [random.randint(1, 6) for _ in range(random.randint(2, 4))]
    shape[-1] = random.choice([1, 16, 64, random.randint(1, 300)])
    return cases.convert_fp8.sample(
        random.choice(["store", "load"]),
        random.choice(DTYPES),
        shape,
        scale=random.choice([0.1, -3.5, 1.0, 0.0, float("nan"), random.uniform(1e-3, 10)]),
        kind=random.choice(["fp8", "fp8_e4m3"]),
        fp8=random.choice([torch.uint8, _E4M3]),
        views=random.choice(_VIEWS),
    )


def _rows_of_pages(tensor: Tensor) -> Tensor:
    return tensor[:, 0]


def _last_two_swapped(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


_VIEWS = (
    ("", Tensor.contiguous, Tensor.contiguous),
    ("pages", _rows_of_pages, _rows_of_pages),
    ("swapped", _last_two_swapped, _last_two_swapped),
    ("src-swapped", Tensor.contiguous, _last_two_swapped),
)


def _concat_and_cache_mla(random: Random) -> Sample:
    kind = random.choice(["auto", *FP8, *_DS_MLA])
    blocks = (random.randint(1, 9), _block_size(random))
    widths = random.choice([(512, 64), (random.randint(1, 600), random.randint(0, 80))])
    is_ds_mla = kind in _DS_MLA
    return cases.concat_and_cache_mla.sample(
        kind,
        _BF16 if is_ds_mla else random.choice(DTYPES),
        _tokens_in(random, blocks[0] * blocks[1]),
        (512, 64) if is_ds_mla else widths,
        blocks,
        layers=_flag(random),
        skip_scale=None if is_ds_mla else random.choice([None, False, True]),
    )


def _concat_and_cache_mla_rope_fused(random: Random) -> Sample:
    rot = random.choice([64, 128, 2 * random.randint(0, 70)])
    return cases.concat_and_cache_mla_rope_fused.sample(
        random.choice(["auto", *FP8]),
        random.choice(DTYPES),
        _flag(random),
        tokens=random.randint(0, 32),
        heads=random.choice([0, 1, 3, 16, 128]),
        widths=(random.choice([512, random.randint(1, 300)]), rot),
        views=_flag(random),
    )


def _concat_mla_q(random: Random) -> Sample:
    return cases.concat_mla_q.sample(
        random.randint(0, 40),
        random.choice([1, 2, 9, 16, 128]),
        *random.choice([(512, 64), (random.randint(1, 600), random.randint(0, 80))]),
        random.choice(DTYPES),
        padded=_flag(random),
    )


def _indexer_k_quant_and_cache(random: Random) -> Sample:
    blocks = (random.randint(2, 9), _block_size(random))
    tokens = _tokens_in(random, blocks[0] * blocks[1] - 1)
    return cases.indexer_k_quant_and_cache.sample(
        random.choice(["ue8m0", "auto", "fp8", ""]),
        tokens,
        random.choice([128, 256, 384, 512]),
        blocks,
        views=_flag(random),
    )


def _gather_and_maybe_dequant_cache(random: Random) -> Sample:
    kind, lengths = random.choice(["auto", *FP8]), _lengths(random)
    return cases.gather_and_maybe_dequant_cache.sample(
        "random",
        random.choice(DTYPES),
        kind,
        lengths=lengths,
        cache_dtype=_stored(kind, random),
        width=random.choice([320, 512, 576, random.randint(1, 600)]),
        block_size=_block_size(random),
        starts=_starts(random, lengths),
        scale=random.choice([0.1, -3.7, random.uniform(1e-3, 10)]),
        extra_rows=random.choice([0, 3]),
        uncovered_tokens=random.choice([0, 2]) if lengths else 0,
        packed=_flag(random),
    )


def _cp_gather_cache(random: Random) -> Sample:
    lengths = _lengths(random)
    entry = random.choice([(576,), (656,), (random.randint(1, 300),), (random.randint(1, 5), 40)])
    return cases.cp_gather_cache.sample(
        "random",
        random.choice([*DTYPES, torch.uint8, torch.int64, _E4M3]),
        lengths,
        entry=entry,
        block_size=_block_size(random),
        starts=_starts(random, lengths),
        spare_rows=random.choice([0, 3]),
        packed=_flag(random),
        flat_rows=_flag(random),
        padded_batch=1 if len(lengths) > 1 and _flag(random) else 0,
    )


def _cp_gather_and_upconvert_fp8_kv_cache(random: Random) -> Sample:
    return cases.cp_gather_and_upconvert_fp8_kv_cache.sample(
        "random",
        _lengths(random),
        cache_dtype=random.choice([torch.uint8, _E4M3, _E5M2]),
        block_size=_block_size(random),
        rows_before=random.choice([0, 3]),
        packed=_flag(random),
    )


def _cp_gather_indexer_k_quant_cache(random: Random) -> Sample:
    scales = random.choice([1, 1, 2, 4])
    return cases.cp_gather_indexer_k_quant_cache.sample(
        "random",
        _lengths(random),
        head_dim=scales * random.choice([128, 128, random.randint(1, 130)]),
        scale_bytes=4 * scales,
        dtype=random.choice([torch.uint8, _E4M3]),
        block_size=_block_size(random),
        spare_rows=random.choice([0, 3]),
        packed=_flag(random),
    )


def _attention(random: Random) -> Problem:
    kind, kv_heads = random.choice(["auto", "auto", *FP8]), random.choice([1, 2, 5])
    head_size = 8 * random.randint(1, 32)
    if _flag(random):
        head_size = random.choice([64, 80, 96, 112, 120, 128, 192, 256])
    sparse = BlockSparse(
        random.randint(0, 3), random.randint(0, 3), random.randint(0, 5),
        random.choice([8, 32, 64]), random.randint(-2, 2),
    )  # fmt: skip
    longest = random.choice([20, 100, 600, 1100])
    return Problem(
        tuple(random.choice([0, 1, random.randint(0, longest)]) for _ in range(3)),
        num_heads=kv_heads * random.choice([1, 2, 4, 7, 8, 16]),
        num_kv_heads=kv_heads,
        head_size=head_size,
        block_size=random.choice([8, 16, 16, 24, 32, 64, 256]),
        dtype=random.choice(DTYPES),
        kv_cache_dtype=kind,
        x=8 if kind != "auto" and head_size % 16 else None,
        cache_dtype=_stored(kind, random),
        alibi=random.random() < 0.25,
        sparse=sparse if random.random() < 0.25 else BlockSparse(),
        k_scale=random.choice([1.0, 0.3]),
        v_scale=random.choice([1.0, 1.7]),
        strided=_flag(random),
    )


def _paged_attention_v1(random: Random) -> Sample:
    return Sample("random", _attention(random).make)


def _paged_attention_v2(random: Random) -> Sample:
    spare = random.choice([0, 2])
    return cases.paged_attention_v2.sample("random", _attention(random), spare)


def _merge_attn_states(random: Random) -> Sample:
    tokens = random.randint(0, 60)
    special = random.random() < 0.25
    states = States(
        tokens=7 if special else tokens,
        heads=7 if special else random.choice([0, 1, 3, 16]),
        head_size=random.choice([64, 128, 256, random.randint(1, 300)]),
        dtype=random.choice(DTYPES),
        fp8=random.choice([None, None, torch.uint8, _E4M3]),
        with_lse=_flag(random),
        tokens_with_context=random.choice([None, random.randint(0, 7 if special else tokens)]),
        special=special,
        strided=_flag(random),
    )
    return Sample("random", states.make)


def _swap_blocks(random: Random) -> Sample:
    block_bytes = random.choice([1, 16, 37, 512, random.randint(1, 5000)])
    blocks, within_one = random.randint(1, 20), _flag(random)
    pairs = [(random.randrange(blocks), random.randrange(blocks)) for _ in range(blocks)]

    def make(device: torch.device, generator: torch.Generator) -> Args:
        src = random_bits([blocks, block_bytes], torch.uint8, generator).to(device)
        dst = src if within_one else poisoned([blocks, block_bytes], torch.uint8).to(device)
        mapping = torch.tensor(pairs)
        return {
            "src": src,
            "dst": dst,
            "block_size_in_bytes": block_bytes,
            "block_mapping": mapping,
        }

    return Sample("random", make)


def _swap_blocks_batch(random: Random) -> Sample:
    """Copies that do not overlap, as those between devices must be, in any direction."""
    sizes = [random.choice([0, 1, 64, random.randint(1, 3000)]) for _ in range(30)]
    gaps = [random.randint(0, 9) for _ in sizes]
    on_host, any_order = random.choice(["", "source", "target"]), _flag(random)

    def make(device: torch.device, generator: torch.Generator) -> Args:
        size, gap = torch.tensor(sizes), torch.tensor(gaps)
        total = int((size + gap).sum())
        ends = (size + gap).cumsum(0)
        order = torch.randperm(len(sizes), generator=generator)
        source = random_bits([total], torch.uint8, generator)
        target = poisoned([total], torch.uint8)
        source = source if on_host == "source" else source.to(device)
        target = target if on_host == "target" else target.to(device)
        return {
            "src_ptrs": (source.data_ptr() + ends - size)[order],
            "dst_ptrs": (target.data_ptr() + total - ends)[order],
            "sizes": size[order],
            "is_src_access_order_any": any_order,
            "_source": source,
            "_target": target,
        }

    return Sample("random", make)


def _transfer_shape(random: Random, *, whole_pages: bool) -> Shape:
    page_size = random.choice([1, 2, 4, 16])
    pages = random.randint(1, 6), random.randint(1, 9)
    in_pages = _flag(random)
    moved = random.randint(0, min(pages))
    tokens = page_size * pages[0], page_size * pages[1]
    anywhere = random.randint(0, tokens[1])
    if whole_pages:
        anywhere -= anywhere % page_size
    layers, dtype = random.randint(1, 5), random.choice([torch.uint8, *DTYPES])
    return Shape(
        src_tokens=tokens[0],
        dst_tokens=tokens[1],
        layers=layers,
        layer_id=random.randrange(layers),
        heads=random.choice([1, 2, 3]),
        head_elems=8 * random.choice([1, 2, 9, random.randint(1, 40)]),
        dtype=dtype,
        page_size=page_size,
        items=moved * page_size if in_pages else anywhere,
        in_pages=in_pages,
        limits=(random.randint(1, 40), random.randint(1, 40)),
        on_host=random.choice(["", "src", "dst"]),
        indices_on_device=_flag(random),
    )


def _kernel_transfer(name: str) -> Callable[[Random], Sample]:
    return lambda random: kernel_sample(name, "random", _transfer_shape(random, whole_pages=False))


def _direct_transfer(name: str) -> Callable[[Random], Sample]:
    return lambda random: direct_sample(
        name, "random", _transfer_shape(random, whole_pages=True), random.choice([1, 2])
    )


def _transfer_embedding_ranges_direct(random: Random) -> Sample:
    lengths = [random.randint(0, 9) for _ in range(random.randint(0, 6))]
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    rows = random.randint(max([1, *lengths]), 60)
    return cases.transfer_embedding_ranges_direct.sample(
        "random",
        [
            (random.randint(0, rows - length), end - length, length)
            for length, end in zip(lengths, ends, strict=True)
        ],
        dtype=random.choice([torch.uint8, *DTYPES]),
        row=random.choice([(37,), (2, 8), (random.randint(1, 3000),)]),
        rows=(rows, max([1, *ends]) + random.choice([0, 5])),
        spaced=_flag(random),
        on_host=random.choice(["", "src", "dst"]),
    )


_SAMPLES: dict[str, Callable[[Random], Sample]] = {
    "reshape_and_cache": _reshape_and_cache,
    "reshape_and_cache_flash": _reshape_and_cache_flash,
    "convert_fp8": _convert_fp8,
    "concat_and_cache_mla": _concat_and_cache_mla,
    "concat_and_cache_mla_rope_fused": _concat_and_cache_mla_rope_fused,
    "concat_mla_q": _concat_mla_q,
    "indexer_k_quant_and_cache": _indexer_k_quant_and_cache,
    "gather_and_maybe_dequant_cache": _gather_and_maybe_dequant_cache,
    "cp_gather_cache": _cp_gather_cache,
    "cp_gather_and_upconvert_fp8_kv_cache": _cp_gather_and_upconvert_fp8_kv_cache,
    "cp_gather_indexer_k_quant_cache": _cp_gather_indexer_k_quant_cache,
    "paged_attention_v1": _paged_attention_v1,
    "paged_attention_v2": _paged_attention_v2,
    "merge_attn_states": _merge_attn_states,
    "swap_blocks": _swap_blocks,
    "swap_blocks_batch": _swap_blocks_batch,
    **{name: _kernel_transfer(name) for name in KERNEL_LAYOUTS},
    **{name: _direct_transfer(name) for name in DIRECT_LISTS},
    "transfer_embedding_ranges_direct": _transfer_embedding_ranges_direct,
}
