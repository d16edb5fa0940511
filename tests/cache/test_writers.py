"""What holds for every cache writer and layout: laws, large calls, offsets beyond 2^31."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache.inputs import WRITER_DTYPES, awkward, cache_dtype, poisoned, slots_in_runs
from cache.writers import WRITERS, Caches, Writer
from tensor_bytes import byte_view

every_writer = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
few_examples = settings(max_examples=100, deadline=None)
KINDS = ("auto", "fp8", "fp8_e5m2")


@dataclass(frozen=True)
class Tokens:
    """Keys and values, and distinct slots for them in a cache of `num_blocks` blocks."""

    rows: Caches
    slots: Tensor
    num_blocks: int
    block_size: int
    generator: torch.Generator

    def room(self, writer: Writer, kind: str) -> Caches:
        return writer.room(self.rows, self.num_blocks, self.block_size, kind)

    def written(self, writer: Writer, kind: str) -> Caches:
        """Caches that hold them."""
        caches = self.room(writer, kind)
        writer.write(self.rows, caches, self.slots, kind)
        return caches

    def part(self, chosen: Tensor) -> Tokens:
        rows = self.rows[0][chosen], self.rows[1][chosen]
        return Tokens(rows, self.slots[chosen], self.num_blocks, self.block_size, self.generator)


@st.composite
def some_tokens(draw: st.DrawFn) -> Tokens:
    """Sizes with remainders of every vector length; slots are one run through shuffled pages."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(WRITER_DTYPES))
    heads, head_size = draw(st.integers(1, 4)), draw(st.integers(1, 70))
    block_size = draw(st.integers(1, 70))
    count = draw(st.integers(0, 150))
    num_blocks = -(-count // block_size) + draw(st.integers(1, 3))
    shape = [count, heads, head_size]
    rows = awkward(shape, dtype, generator), awkward(shape, dtype, generator)
    slots = slots_in_runs(count, num_blocks, block_size, generator)
    return Tokens(rows, slots, num_blocks, block_size, generator)


def same_bytes(left: Caches, right: Caches) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(byte_view(a), byte_view(b)) for a, b in pairs)


@every_writer
@given(tokens=some_tokens())
@few_examples
def test_what_is_written_is_read_and_nothing_else_changes(writer: Writer, tokens: Tokens) -> None:
    caches = tokens.written(writer, "auto")
    assert same_bytes(writer.tokens(caches, tokens.slots), tokens.rows)
    # Poison the same places again, by the same way, and nothing is left of the tokens.
    poison = poisoned(tokens.rows[0].shape, tokens.rows[0].dtype)
    writer.write((poison, poison), caches, tokens.slots)
    assert same_bytes(caches, tokens.room(writer, "auto"))


@every_writer
@given(tokens=some_tokens(), kind=st.sampled_from(KINDS))
@few_examples
def test_runs_and_single_tokens_are_written_alike(
    writer: Writer, tokens: Tokens, kind: str
) -> None:
    order = torch.randperm(len(tokens.slots), generator=tokens.generator)
    shuffled = tokens.part(order)
    assert same_bytes(tokens.written(writer, kind), shuffled.written(writer, kind))


@every_writer
@given(tokens=some_tokens(), kind=st.sampled_from(KINDS))
@few_examples
def test_permuted_blocks_give_permuted_caches(writer: Writer, tokens: Tokens, kind: str) -> None:
    order = torch.randperm(tokens.num_blocks, generator=tokens.generator)
    size = tokens.block_size
    moved_slots = order[tokens.slots // size] * size + tokens.slots % size
    moved = Tokens(tokens.rows, moved_slots, tokens.num_blocks, size, tokens.generator)
    expected = moved.written(writer, kind)
    plain = tokens.written(writer, kind)
    assert same_bytes(plain, (expected[0][order], expected[1][order]))


@every_writer
@given(tokens=some_tokens(), kind=st.sampled_from(KINDS), other_size=st.integers(1, 70))
@few_examples
def test_page_size_does_not_matter(
    writer: Writer, tokens: Tokens, kind: str, other_size: int
) -> None:
    slots = torch.randperm(tokens.num_blocks * tokens.block_size, generator=tokens.generator)
    slots = slots[: len(tokens.slots)].sort().values
    other_blocks = -(-tokens.num_blocks * tokens.block_size // other_size)
    read = []
    for num_blocks, size in ((tokens.num_blocks, tokens.block_size), (other_blocks, other_size)):
        paged = Tokens(tokens.rows, slots, num_blocks, size, tokens.generator)
        read.append(writer.tokens(paged.written(writer, kind), slots))
    assert same_bytes(*read)


@every_writer
@given(tokens=some_tokens(), kind=st.sampled_from(KINDS))
@few_examples
def test_tokens_without_a_slot_are_as_if_not_there(
    writer: Writer, tokens: Tokens, kind: str
) -> None:
    kept = torch.rand(len(tokens.slots), generator=tokens.generator) < 0.7
    end = tokens.num_blocks * tokens.block_size
    nowhere = torch.tensor([-1, -(2**63), -end, end, 2**40, 2**63 - 1])
    chosen = torch.randint(len(nowhere), tokens.slots.shape, generator=tokens.generator)
    some = tokens.part(torch.ones_like(kept))
    some.slots[~kept] = nowhere[chosen[~kept]]
    assert same_bytes(some.written(writer, kind), tokens.part(kept).written(writer, kind))


# Calls that write 8 MiB and more go around the processor's cache where lines are written whole.
LARGE_CALL_BYTES = 9 << 20


def in_small_calls(writer: Writer, tokens: Tokens, caches: Caches, kind: str) -> None:
    for chosen in torch.arange(len(tokens.slots)).split(509):
        part = tokens.part(chosen)
        writer.write(part.rows, caches, part.slots, kind)


def shifted(caches: Caches, by_elems: int) -> Caches:
    """Poisoned caches of the same sizes and strides, which begin so many elements later."""
    result = []
    for cache in caches:
        storage = poisoned([by_elems + cache.untyped_storage().nbytes() // cache.element_size()],
                           cache.dtype)  # fmt: skip
        result.append(storage.as_strided(cache.size(), cache.stride(), by_elems))
    return result[0], result[1]


@pytest.mark.parametrize("block_size", [8, 16, 24, 32, 40, 64, 80, 128, 256])
@pytest.mark.parametrize(
    ("kind", "dtype", "head_size", "shift"),
    [
        *(("auto", dtype, 128, 0) for dtype in WRITER_DTYPES),
        *(("fp8", dtype, 128, 0) for dtype in WRITER_DTYPES),
        ("fp8_e5m2", torch.bfloat16, 96, 0),
        ("auto", torch.float16, 80, 0),
        ("fp8", torch.float16, 80, 0),
        ("auto", torch.bfloat16, 128, 8),
        ("auto", torch.bfloat16, 128, 1),
        ("fp8", torch.bfloat16, 128, 16),
        ("fp8", torch.bfloat16, 64, 3),
        ("auto", torch.bfloat16, 52, 0),
    ],
    ids=str,
)
@every_writer
def test_large_calls_write_the_bytes_of_small_ones(
    writer: Writer, kind: str, dtype: torch.dtype, head_size: int, shift: int, block_size: int
) -> None:
    generator = torch.Generator().manual_seed(block_size)
    heads = 4
    token_bytes = 2 * heads * head_size * cache_dtype(kind, dtype).itemsize
    count = LARGE_CALL_BYTES // token_bytes
    num_blocks = count // block_size + 2
    # Repeated: making 9 MiB of awkward numbers takes longer than the test.
    some = awkward([97, heads, head_size], dtype, generator)
    rows = some.repeat(count // 97 + 1, 1, 1)[:count], some.flip(0).repeat(count // 97 + 1, 1, 1)
    slots = slots_in_runs(count, num_blocks, block_size, generator)
    tokens = Tokens((rows[0], rows[1][:count]), slots, num_blocks, block_size, generator)
    large = shifted(tokens.room(writer, kind), shift)
    small = shifted(tokens.room(writer, kind), shift)
    writer.write(tokens.rows, large, slots, kind)
    in_small_calls(writer, tokens, small, kind)
    assert same_bytes(large, small)


FAR_ELEMS = 2**31 + 64


def far_apart(cache: Tensor) -> Tensor:
    """Two blocks of the same shape, more than 2^31 elements from each other."""
    strides = list(cache.stride())
    strides[0] = FAR_ELEMS
    # Nobody touches the gigabytes between them, so they take no memory.
    buffer = torch.empty(FAR_ELEMS + cache[0].numel(), dtype=cache.dtype)
    result = buffer.as_strided(cache.size(), strides)
    byte_view(result).copy_(byte_view(cache))
    return result


@pytest.mark.parametrize(("kind", "dtype"), [("auto", torch.bfloat16), ("fp8", torch.float32)])
@every_writer
def test_blocks_and_tokens_beyond_2_to_the_31_elements(
    writer: Writer, kind: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    near = awkward([2, 3, 48], dtype, generator), awkward([2, 3, 48], dtype, generator)
    slots = torch.tensor([31, 2])
    expected = writer.room(near, 2, 16, kind)
    writer.write(near, expected, slots, kind)
    caches = writer.room(near, 2, 16, kind)
    caches = far_apart(caches[0]), far_apart(caches[1])
    writer.write((far_apart(near[0]), far_apart(near[1])), caches, slots, kind)
    assert same_bytes(caches, expected)
