"""Which path copies take, by the built-in model; and 2-D copies. No GPU is needed."""

from __future__ import annotations

import pytest

from swap.driver_layer import ANY_PATH, PATHS, Layer
from swap.test_driver_layer import INVALID_VALUE, Memory

KIB = 1 << 10
LINK = ("to_device", "to_host")
DRIVER = ANY_PATH - PATHS["kernel"]
LED = "kernel+batch"


@pytest.mark.parametrize("kind", LINK)
@pytest.mark.parametrize(
    ("copies", "size", "path"),
    [
        (1, 4 * KIB, "single"),
        (1, 4096 * KIB, "single"),
        (64, 4 * KIB, "kernel"),
        (4096, 512, "kernel"),
        (32768, 4 * KIB, "kernel"),
        (64, 32 * KIB, "kernel"),
        (256, 32 * KIB, "kernel"),
        (512, 41 * KIB, LED),
        (1024, 41 * KIB, LED),
        (5, 2048 * KIB, "batch"),
        (64, 256 * KIB, "batch"),
        (1024, 64 * KIB, "batch"),
        (64, 1024 * KIB, "batch"),
    ],
)
def test_scattered_copies(layer: Layer, kind: str, copies: int, size: int, path: str) -> None:
    assert layer.choose(kind, copies, size) == path


@pytest.mark.parametrize("kind", LINK)
def test_what_the_kernel_takes_ahead_of_a_batch(layer: Layer, kind: str) -> None:
    """A few large copies, a share of those that the host may be slow with, at most a third."""
    assert 1 <= layer.lead(kind, 64, 256 * KIB) <= 8
    assert 16 <= layer.lead(kind, 1024, 64 * KIB) <= 64
    small, large = (layer.lead(kind, copies, 41 * KIB) / copies for copies in (512, 4096))
    assert 0.05 < large < small <= 1 / 3
    for copies, size in ((4096, 4 * KIB), (1024, 512), (8, 32 * KIB), (1, 4096 * KIB)):
        assert layer.lead(kind, copies, size) == 0


@pytest.mark.parametrize("kind", LINK)
def test_where_the_host_s_pace_decides(layer: Layer, kind: str) -> None:
    """A host slower than the kernel, one that a lead makes up for, one quicker than the link."""
    for pace, path in ((0.85, "kernel"), (0.6, LED), (0.45, "batch")):
        for copies in (1024, 4096):
            assert layer.choose(kind, copies, 32 * KIB, host_pace=pace) == path
        assert layer.choose(kind, 64, 32 * KIB, host_pace=pace) == "kernel"
        assert layer.choose(kind, 4096, 4 * KIB, host_pace=pace) == "kernel"
        assert layer.choose(kind, 1024, 256 * KIB, host_pace=pace) == "batch"
    leads = [layer.lead(kind, 4096, 32 * KIB, host_pace=pace) for pace in (0.45, 0.56, 0.6)]
    assert 16 <= leads[0] < leads[1] < leads[2] <= 4096 // 3


@pytest.mark.parametrize("kind", LINK)
def test_a_pace_that_nobody_knows_is_measured(layer: Layer, kind: str) -> None:
    """By the last copies of a call that it would have mattered for: five calls' worth."""
    measured = 32 + 40 + 50 + 62 + 77
    for copies in (1024, 4096):
        assert layer.choose(kind, copies, 32 * KIB) == LED
        assert layer.lead(kind, copies, 32 * KIB) == copies - measured
        assert layer.lead(kind, copies, 32 * KIB, host_pace=0.85) == 0
    for less in ({"allowed": PATHS["kernel"]}, {"capturing": True}, {"has_batch": False}):
        assert layer.choose(kind, 1024, 32 * KIB, **less) == "kernel"
    for copies, size in ((256, 32), (1024, 24)):
        assert layer.choose(kind, copies, size * KIB) == "kernel"


def test_what_is_remembered_of_the_host(layer: Layer) -> None:
    assert layer.host_pace() == 0
    assert layer.host_pace(0.8) == 0.8
    assert layer.host_pace(0.6) == pytest.approx(0.7)
    assert layer.host_pace(0.8) == pytest.approx(0.75)
    for _ in range(64):
        assert layer.host_pace() > 0
        layer.note_slow_host()
    assert layer.host_pace() == 0  # time to look again


@pytest.mark.parametrize("kind", LINK)
def test_no_led_batch_where_one_of_its_paths_must_not_be(layer: Layer, kind: str) -> None:
    for allowed in (DRIVER, PATHS["batch"]):
        assert layer.choose(kind, 1024, 41 * KIB, allowed=allowed) == "batch"
    for less in ({"allowed": PATHS["kernel"]}, {"capturing": True}, {"has_batch": False}):
        assert layer.choose(kind, 1024, 41 * KIB, **less) == "kernel"


@pytest.mark.parametrize("kind", LINK)
@pytest.mark.parametrize("size", [512, 4 * KIB, 256 * KIB])
def test_rows_are_one_copy(layer: Layer, kind: str, size: int) -> None:
    assert layer.choose(kind, 1024, size, strided=True) == "strided"
    assert layer.choose(kind, 1024, size, strided=True, allowed=DRIVER) == "strided"
    assert layer.choose(kind, 1024, size, strided=True, allowed=PATHS["kernel"]) == ""


def test_within_a_device_it_is_the_kernel(layer: Layer) -> None:
    assert layer.choose("within_device", 4, 4096 * KIB) == "kernel"
    assert layer.choose("within_device", 4, 4096 * KIB, allowed=DRIVER) == "batch"


@pytest.mark.parametrize("kind", LINK)
@pytest.mark.parametrize("size", [512, 4 * KIB, 64 * KIB, 1024 * KIB])
def test_no_multiprocessor_if_that_is_asked_for(layer: Layer, kind: str, size: int) -> None:
    for copies in (1, 2, 1000):
        assert layer.choose(kind, copies, size, allowed=DRIVER) in ("batch", "single")


@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
@pytest.mark.parametrize("kind", LINK)
def test_a_demand_is_met(layer: Layer, kind: str, path: str) -> None:
    for size in (64, 4 * KIB, 4096 * KIB):
        assert layer.choose(kind, 100, size, allowed=PATHS[path]) == path


@pytest.mark.parametrize("kind", [*LINK, "by_driver", "within_device"])
@pytest.mark.parametrize("allowed", [ANY_PATH, DRIVER, PATHS["batch"], PATHS["strided"]])
def test_no_batch_where_there_can_be_none(layer: Layer, kind: str, allowed: int) -> None:
    for impossible in ({"has_batch": False}, {"capturing": True}):
        path = layer.choose(kind, 1000, 64 * KIB, allowed=allowed, **impossible)
        assert path in ("kernel", "single")
        assert path == "single" or allowed & PATHS["kernel"]


def test_the_detour_of_the_default_stream_counts(layer: Layer) -> None:
    two = {"copies": 2, "copy_bytes": 8192 * KIB, "allowed": DRIVER}
    assert layer.choose("to_device", **two) == "batch"
    assert layer.choose("to_device", **two, on_default_stream=True) == "single"


def rows_of(memory: Memory, count: int, src_step: int, dst_step: int, size: int) -> list:
    src, dst = memory.source.data_ptr(), memory.target.data_ptr()
    return [(src + src_step * i, dst + dst_step * i, size) for i in range(count)]


def test_a_2d_copy(layer: Layer) -> None:
    memory = Memory()
    assert layer.copy_2d(rows_of(memory, 50, 128, 64, 64)) == 50
    assert layer.get("calls_2d") == 1
    assert (memory.target[:50] == memory.source[:100:2]).all()
    assert not memory.target[50:].any()


def test_where_rows_end(layer: Layer) -> None:
    memory = Memory()
    rows = rows_of(memory, 30, 128, 64, 64)
    src, dst, size = rows[20]
    for other in ((src + 1, dst, size), (src, dst + 1, size), (src, dst, size - 1)):
        assert layer.copy_2d([*rows[:20], other, *rows[21:]]) == 20
    assert layer.copy_2d(rows[:1]) == 1
    assert layer.copy_2d([]) == 0


def test_what_no_rows_are(layer: Layer) -> None:
    memory = Memory()
    assert layer.copy_2d(rows_of(memory, 10, 32, 64, 64)) == 1, "overlap"
    assert layer.copy_2d(rows_of(memory, 10, 64, 64, 64)[::-1]) == 1, "downwards"
    assert layer.copy_2d([(0, 0, 64), (1 << 31, 64, 64)]) == 1, "too far apart"
    assert layer.get("calls_2d") == 0


def test_an_error_of_a_2d_copy_names_its_first_row(layer: Layer) -> None:
    layer.set(error_2d=INVALID_VALUE)
    memory = Memory()
    rows = rows_of(memory, 10, 128, 64, 64)
    first = rf"the first being entry 0 \(64 bytes from {rows[0][0]:#x} to"
    with pytest.raises(RuntimeError, match=f"cuMemcpy2DAsync failed at 10 rows, {first}"):
        layer.copy_2d(rows)
