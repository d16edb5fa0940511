"""The swaps' driver layer against a stand-in for the driver: no GPU, no CUDA runtime, no torch.

It is compiled with the headers of CUDA 12.8, in which the batch call has 9 arguments, and with
those of the installed toolkit, in which the same name may mean a function of 8.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from swap.driver_layer import Binaries, Layer

NOT_SUPPORTED, INVALID_VALUE, ILLEGAL_ADDRESS = 801, 1, 700
STREAM_ORDER, ANY_ORDER = 1, 3


class Memory:
    """Host memory that plays every part: 200 blocks of 64 bytes, and as many empty ones."""

    def __init__(self) -> None:
        self.source = torch.randint(1, 256, [200, 64], dtype=torch.uint8)
        self.target = torch.zeros([200, 64], dtype=torch.uint8)

    def rows(self, blocks: range) -> list[tuple[int, int, int]]:
        """Copies of every second block, so that none is next to another."""
        src, dst = self.source.data_ptr(), self.target.data_ptr()
        return [(src + 64 * i, dst + 64 * i, 64) for i in blocks]

    def copied(self) -> list[int]:
        same = (self.source == self.target).all(dim=1)
        return same.nonzero().flatten().tolist()


def test_the_batch_call_copies(layer: Layer) -> None:
    memory = Memory()
    blocks = range(0, 200, 2)
    assert layer.copy(memory.rows(blocks)) == 100
    assert memory.copied() == list(blocks)
    # The first call is small, so that copies begin early: 32 of them, then 64, then the rest.
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (3, 0)


def test_a_missing_symbol_means_single_copies(layer: Layer) -> None:
    layer.set(has_batch=0)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert memory.copied() == list(range(0, 20, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (0, 10)


@pytest.mark.parametrize("version", [12000, 12060, 12079])
def test_an_old_driver_means_single_copies(layer: Layer, version: int) -> None:
    layer.set(version=version)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert memory.copied() == list(range(0, 20, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (0, 10)


@pytest.mark.parametrize("version", [12080, 12090, 13000, 13020])
def test_every_newer_driver_is_asked_for_version_12080(layer: Layer, version: int) -> None:
    layer.set(version=version)
    memory = Memory()
    for _ in range(2):
        assert layer.copy(memory.rows(range(3))) == 3
    name = (ctypes.c_char * 64).in_dll(layer.driver, "asked_name").value
    assert (name, layer.get("asked_version")) == (b"cuMemcpyBatchAsync", 12080)
    assert layer.get("lookups") == 1


def test_not_supported_means_single_copies_from_then_on(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert layer.copy(memory.rows(range(1, 20, 2))) == 0
    assert memory.copied() == list(range(20))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (1, 20)


def test_not_supported_in_a_later_chunk(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED, fail_in_call=2)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 40, 2)), chunk=6) == 12
    assert memory.copied() == list(range(0, 40, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (3, 8)


@pytest.mark.parametrize("index", [0, 3, 9])
def test_an_error_names_the_copy(layer: Layer, index: int) -> None:
    layer.set(batch_error=INVALID_VALUE, fail_index=index)
    memory = Memory()
    rows = memory.rows(range(0, 20, 2))
    src, dst, size = rows[index]
    with pytest.raises(RuntimeError) as error:
        layer.copy(rows)
    assert str(error.value) == (
        f"kvops::swap_blocks_batch: cuMemcpyBatchAsync failed at entry {index} ({size} bytes from "
        f"{src:#x} to {dst:#x}): CUDA_ERROR_INVALID_VALUE (1)"
    )
    assert layer.get("single_calls") == 0


def test_an_error_in_a_later_chunk_names_the_caller_s_entry(layer: Layer) -> None:
    layer.set(batch_error=ILLEGAL_ADDRESS, fail_in_call=1, fail_index=2)
    memory = Memory()
    rows = memory.rows(range(0, 40, 2))
    with pytest.raises(RuntimeError, match=rf"entry 8 \(64 bytes from {rows[8][0]:#x} .*error 700"):
        layer.copy(rows, chunk=6)
    assert layer.get("batch_calls") == 2, "nothing goes on after an error"


def test_an_error_that_is_nobody_s(layer: Layer) -> None:
    layer.set(batch_error=INVALID_VALUE, fail_in_call=1)
    memory = Memory()
    with pytest.raises(RuntimeError, match="some entry from 6 to 11, the first being entry 6"):
        layer.copy(memory.rows(range(0, 40, 2)), chunk=6)


def test_an_error_of_a_single_copy(layer: Layer) -> None:
    layer.set(has_batch=0, single_error=INVALID_VALUE, fail_in_single=4)
    memory = Memory()
    rows = memory.rows(range(0, 20, 2))
    message = rf"cuMemcpyAsync failed at entry 4 \(64 bytes from {rows[4][0]:#x} to"
    with pytest.raises(RuntimeError, match=message):
        layer.copy(rows)
    assert memory.copied() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("any_order", "expected"), [(False, STREAM_ORDER), (True, ANY_ORDER)], ids=["stream", "any"]
)
def test_the_nine_arguments(layer: Layer, any_order: bool, expected: int) -> None:
    memory = Memory()
    layer.copy(memory.rows(range(0, 10, 2)), any_order=any_order, stream=0x1234)
    attribute = layer.attribute()
    assert (attribute.order, list(attribute.hints), attribute.flags) == (expected, [0] * 4, 0)
    assert layer.get("num_attributes", ctypes.c_size_t) == 1
    assert layer.get("first_index", ctypes.c_size_t) == 0
    assert layer.get("has_fail_index") == 1
    assert layer.get("batch_stream", ctypes.c_void_p) == 0x1234
    assert layer.counts() == [5]


@pytest.mark.parametrize(
    ("chunk", "counts"), [(7, [7, 7, 6]), (20, [20]), (21, [20]), (1, [1] * 20)]
)
def test_chunks(layer: Layer, chunk: int, counts: list[int]) -> None:
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 40, 2)), chunk=chunk) == 20
    assert layer.counts() == counts
    assert memory.copied() == list(range(0, 40, 2))


@pytest.mark.parametrize(
    ("text", "expected"), [("100", 100), ("0", 512), ("-3", 512), ("many", 512), (None, 512)]
)
def test_the_size_of_chunks(
    binaries: Binaries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    expected: int,
) -> None:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")
    monkeypatch.delenv("KVOPS_SWAP_MAX_DESCRIPTORS", raising=False)
    if text is not None:
        monkeypatch.setenv("KVOPS_SWAP_MAX_DESCRIPTORS", text)
    assert Layer(tmp_path, binaries).library.harness_max_descriptors() == expected


@pytest.mark.parametrize("attempt", range(5))
def test_sixteen_threads_make_the_first_call(layer: Layer, attempt: int) -> None:
    assert layer.library.harness_race(16) == 16
    assert layer.get("lookups") == 1
    assert layer.get("batch_calls") == 16


def test_sixteen_threads_meet_a_driver_without_support(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED)
    assert layer.library.harness_race(16) == 0
    assert layer.get("single_calls") == 16


def test_no_driver(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")
    layer = Layer(tmp_path, binaries, with_driver=False)
    assert not layer.library.harness_has_driver()
    plan = layer.plan([(4096, 8192, 100)])
    assert plan["singly"] == [(4096, 8192, 100, 0)]
