"""Offsets beyond 32 bits, and more rows than one dimension of a grid has.

Of every operator each tensor in turn is laid out with gigabytes between its rows or blocks, of
which only the rows themselves are ever touched.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cases.concat_and_cache_mla
import cases.concat_mla_q
import cases.cp_gather_and_upconvert_fp8_kv_cache
import cases.cp_gather_cache
import cases.cp_gather_indexer_k_quant_cache
import cases.gather_and_maybe_dequant_cache
import cases.indexer_k_quant_and_cache
import cases.paged_attention_v2
import cases.reshape_and_cache
import cases.reshape_and_cache_flash
import kvops
from attention.inputs import Problem
from cases.merge_attn_states import States
from devices import CUDA
from kvops.reference.numerics import E4M3, load_fp8
from registry import OpCase, Sample
from support import CASES, Call, by_operator, kinds, make_args, sample_params
from transfer.inputs import KERNEL_LAYOUTS

# The last row begins that many elements after the first: beyond uint32 as well.
FAR_ELEMS = 2**32
MANY = 70_001  # more than gridDim.y and .z can be

pytestmark = pytest.mark.parametrize("device", CUDA)


@pytest.fixture(autouse=True)
def _give_memory_back(device: str):
    yield
    torch.cuda.empty_cache()


def require_bytes(count: int) -> None:
    if torch.cuda.mem_get_info()[0] < count + (1 << 30):
        pytest.skip(f"needs {count / 2**30:.0f} GiB of free GPU memory")


def far_apart(tensor: Tensor, extra: int) -> Tensor:
    """A copy with gigabytes between the entries of the first dimension.

    `extra` is added to a multiple of 64 elements: with 1, rows have any alignment.
    """
    stride = (FAR_ELEMS // (tensor.size(0) - 1) // 64 + 1) * 64 + extra
    span = stride * (tensor.size(0) - 1) + tensor[0].numel()
    require_bytes(span * tensor.element_size())
    dense = tensor.contiguous()
    storage = torch.empty(span, dtype=tensor.dtype, device=tensor.device)
    view = storage.as_strided(tensor.size(), (stride, *dense.stride()[1:]))
    return view.copy_(dense)


def far_candidates(call: Call) -> list[str]:
    return [
        name
        for name, value in call.args.items()
        if isinstance(value, Tensor) and value.is_cuda and value.dim() > 1 and value.size(0) > 1
    ]


def accepts(call: Call) -> bool:
    try:
        by_operator(call)
    except RuntimeError as error:
        assert f"kvops::{call.case.name}: " in str(error)
        assert "must" in str(error), error  # a refusal of the layout, not a failure
        return False
    torch.cuda.synchronize()
    return True


def assert_outputs(call: Call, expected: Call) -> None:
    for name, tensor in call.outputs().items():
        if name not in call.case.scratch:
            call.case.compare(name, tensor.cpu(), expected.args[name], expected.args)


def first_kinds(case: OpCase) -> tuple[Sample, ...]:
    """Swaps and kernel forms of transfers take pools without gaps: see below."""
    takes_dense = case.name.startswith("swap") or case.name in KERNEL_LAYOUTS
    return () if takes_dense else kinds(case)[:3]


@pytest.mark.parametrize("extra", [0, 1], ids=["aligned", "odd"])
@pytest.mark.parametrize(("case", "sample"), sample_params(first_kinds))
def test_each_tensor_far_apart(case: OpCase, sample: Sample, extra: int, device: str) -> None:
    expected = Call(case, make_args(case, sample, "cpu"), ())
    by_operator(expected)
    accepted = []
    for name in far_candidates(Call(case, make_args(case, sample, device), ())):
        args = make_args(case, sample, device)
        args[name] = far_apart(args[name], extra)
        call = Call(case, args, ())
        if accepts(call):
            assert_outputs(call, expected)
            accepted.append(name)
        del args, call
        torch.cuda.empty_cache()
    assert accepted


def assert_gathers(cache: Tensor, dst: Tensor) -> None:
    """Rows of one request from two blocks in turns."""
    block_size, rows = cache.size(1), dst.size(0)
    table = (torch.arange(-(-rows // block_size)) % 2).int()[None].to(cache.device)
    starts = torch.tensor([0, rows], dtype=torch.int32, device=cache.device)
    for block in cache:
        block.random_(256)
    kvops.cp_gather_cache(cache, dst, table, starts, 1)
    for row in range(rows):
        page, offset = divmod(row, block_size)
        assert torch.equal(dst[row], cache[page % 2, offset])


@pytest.mark.parametrize("last_entry", [2**32 - 2, 2**32 - 1, 2**32 + 1])
def test_gather_from_blocks_far_apart(last_entry: int, device: str) -> None:
    """Odd addresses, so that entries are counted in bytes, in 32 bits if that is enough."""
    block_size, width, rows = 3, 1151, 100
    require_bytes(last_entry)
    stride = last_entry - (block_size - 1) * width
    storage = torch.empty(last_entry + width, dtype=torch.uint8, device=device)
    cache = storage.as_strided([2, block_size, width], [stride, width, 1])
    assert_gathers(cache, torch.zeros(rows, width, dtype=torch.uint8, device=device))


@pytest.mark.parametrize("stride", [2**32 - 16, 2**32])
def test_gather_to_rows_far_apart(stride: int, device: str) -> None:
    """Rows so wide that three of them are many units."""
    width, rows = 2**19, 3
    require_bytes(2 * stride + width)
    storage = torch.empty(2 * stride + width, dtype=torch.uint8, device=device)
    cache = torch.empty(2, 1, width, dtype=torch.uint8, device=device)
    assert_gathers(cache, storage.as_strided([rows, width], [stride, 1]))


def test_swaps_of_blocks_far_into_a_pool(device: str) -> None:
    block_bytes, blocks = 1 << 20, 5000
    require_bytes(2 * blocks * block_bytes)
    src, dst = (
        torch.empty(blocks, block_bytes, dtype=torch.uint8, device=device) for _ in range(2)
    )
    pairs = torch.tensor([[4999, 0], [0, 4998], [4100, 4999], [2049, 2048]])
    for source, _ in pairs.tolist():
        src[source].random_()
    kvops.swap_blocks(src, dst, block_bytes, pairs)
    for source, target in pairs.tolist():
        assert torch.equal(dst[target], src[source])
    tables = src.data_ptr() + pairs[:, 0] * block_bytes, dst.data_ptr() + pairs[:, 1] * block_bytes
    for _, target in pairs.tolist():
        dst[target].zero_()
    kvops.swap_blocks_batch(*tables, torch.full([4], block_bytes))
    for source, target in pairs.tolist():
        assert torch.equal(dst[target], src[source])


@pytest.mark.parametrize("form", ["kernel", "tables", "direct"])
def test_transfers_of_items_far_into_a_pool(form: str, device: str) -> None:
    item_bytes, tokens = 1 << 20, 5000
    require_bytes(2 * tokens * item_bytes)
    src, dst = (torch.empty(tokens, item_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    pairs = torch.tensor([[4999, 0], [0, 4998], [4100, 4999], [2049, 2048]])
    for source, target in pairs.tolist():
        src[source].random_()
        dst[target].zero_()
    indices = pairs.T.contiguous().to(device)
    if form == "kernel":
        kvops.transfer_kv_per_layer_mla(src, dst, *indices, item_bytes)
    elif form == "tables":
        tables = (torch.tensor([t.data_ptr()], device=device) for t in (src, dst))
        kvops.transfer_kv_all_layer_mla(*tables, *indices, item_bytes, 1)
    else:
        kvops.transfer_kv_direct([src], [dst], *indices, 1)
    for source, target in pairs.tolist():
        assert torch.equal(dst[target], src[source])


def test_transfer_of_more_items_than_a_grid_has(device: str) -> None:
    src = torch.randn(2 * MANY, 8, device=device)
    dst = torch.zeros_like(src)
    order = torch.randperm(2 * MANY, device=device)
    kvops.transfer_kv_per_layer_mla(src, dst, order, order.flip(0), 32)
    assert torch.equal(dst[order.flip(0)], src[order])


def test_one_copy_of_more_than_four_gigabytes(device: str) -> None:
    size = 2**32 + 4099
    require_bytes(2 * size)
    src, dst = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    src[-5000:].random_()
    src[2**31 - 50 : 2**31 + 50].random_()
    sizes = torch.tensor([size])
    kvops.swap_blocks_batch(torch.tensor([src.data_ptr()]), torch.tensor([dst.data_ptr()]), sizes)
    assert torch.equal(src, dst)


@pytest.mark.parametrize("shape", [(2**31 + 4099,), (3, 2**30 + 17)], ids=str)
def test_conversion_of_many_elements(shape: tuple[int, ...], device: str) -> None:
    count = torch.Size(shape).numel()
    require_bytes(4 * count)
    src = torch.empty(shape, dtype=torch.uint8, device=device)
    dst = torch.empty(shape, dtype=torch.bfloat16, device=device)
    flat_src, flat_dst = src.view(-1), dst.view(-1)
    parts = [slice(0, 999), slice(2**31 - 500, 2**31 + 500), slice(count - 999, count)]
    for part in parts:
        flat_src[part].random_()
    kvops.convert_fp8(dst, src, 0.3, "fp8")
    for part in parts:
        scale = torch.tensor(0.3)
        expected = load_fp8(flat_src[part].cpu(), scale, E4M3, torch.bfloat16)
        assert torch.equal(flat_dst[part].cpu().view(torch.int16), expected.view(torch.int16))


_BF16, _FLOAT = torch.bfloat16, torch.float32
_ONE_TOKEN_EACH = Problem((1,) * MANY, num_heads=1, num_kv_heads=1, head_size=8, block_size=8)
MANY_ROWS: dict[str, list[Callable[[], Sample]]] = {
    "reshape_and_cache": [
        lambda: cases.reshape_and_cache.sample("auto", _BF16, MANY, 1, 8, scattered=True),
        lambda: cases.reshape_and_cache.sample("fp8", _FLOAT, 3, MANY, 16),
    ],
    "reshape_and_cache_flash": [
        lambda: cases.reshape_and_cache_flash.sample("auto", _BF16, MANY, 1, (8, 8)),
        lambda: cases.reshape_and_cache_flash.sample("fp8", _FLOAT, 3, MANY, (8, 8), 1),
    ],
    "concat_and_cache_mla": [
        lambda: cases.concat_and_cache_mla.sample("auto", _BF16, MANY, (16, 8), (4400, 16)),
        lambda: cases.concat_and_cache_mla.sample("fp8", _FLOAT, MANY, (16, 8), (4400, 16)),
        lambda: cases.concat_and_cache_mla.sample("fp8_ds_mla", _BF16, MANY, (512, 64), (4400, 16)),
    ],
    "concat_mla_q": [
        lambda: cases.concat_mla_q.sample(MANY, 1, 8, 8, _BF16),
        lambda: cases.concat_mla_q.sample(2, MANY, 8, 8, _BF16),
    ],
    "indexer_k_quant_and_cache": [
        lambda: cases.indexer_k_quant_and_cache.sample("ue8m0", MANY, 128, (4400, 16)),
    ],
    "gather_and_maybe_dequant_cache": [
        lambda: cases.gather_and_maybe_dequant_cache.sample(
            "many", _BF16, "fp8", lengths=(MANY, 9), width=16
        ),
        lambda: cases.gather_and_maybe_dequant_cache.sample(
            "requests", _BF16, lengths=(1,) * MANY, width=16, block_size=1
        ),
    ],
    "cp_gather_cache": [
        lambda: cases.cp_gather_cache.sample("many", _BF16, [MANY, 9], entry=(16,)),
        lambda: cases.cp_gather_cache.sample(
            "requests", _BF16, [1] * MANY, entry=(16,), block_size=1
        ),
    ],
    "cp_gather_and_upconvert_fp8_kv_cache": [
        lambda: cases.cp_gather_and_upconvert_fp8_kv_cache.sample("many", [MANY, 9]),
    ],
    "cp_gather_indexer_k_quant_cache": [
        lambda: cases.cp_gather_indexer_k_quant_cache.sample("many", [MANY, 9]),
    ],
    "paged_attention_v1": [
        lambda: Sample("sequences", _ONE_TOKEN_EACH.make),
        lambda: Sample("heads", _ONE_TOKEN_EACH.change(seq_lens=(5,), num_heads=MANY).make),
        lambda: Sample("tokens", _ONE_TOKEN_EACH.change(seq_lens=(MANY, 3), dtype=_BF16).make),
    ],
    "paged_attention_v2": [
        lambda: cases.paged_attention_v2.sample("sequences", _ONE_TOKEN_EACH),
        lambda: cases.paged_attention_v2.sample(
            "tokens", _ONE_TOKEN_EACH.change(seq_lens=(MANY, 3), dtype=_BF16)
        ),
    ],
    "merge_attn_states": [
        lambda: Sample("tokens", States(tokens=MANY, heads=1, head_size=8).make),
        lambda: Sample("heads", States(tokens=2, heads=MANY, head_size=8).make),
    ],
}


@pytest.mark.parametrize(
    ("case", "make"),
    [
        pytest.param(CASES[name], make, id=f"{name}-{index}")
        for name, makes in MANY_ROWS.items()
        for index, make in enumerate(makes)
    ],
)
def test_more_rows_than_a_grid_has(case: OpCase, make: Callable[[], Sample], device: str) -> None:
    sample = make()
    expected, call = (Call(case, make_args(case, sample, where), ()) for where in ("cpu", device))
    by_operator(expected)
    by_operator(call)
    torch.cuda.synchronize()
    assert_outputs(call, expected)
