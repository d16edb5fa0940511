"""Transfers under torch.compile, where their schemas do not tell: right bytes, out of the graph.

Forms that get tables of addresses, and all of SGLang's names. Every program writes the source
before the call and after it, and reads the target after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import kvops

TOKENS, WIDTH = 6, 16
ITEM_BYTES = 4 * WIDTH


def by_tables(operator: Callable[..., None]) -> Callable[..., None]:
    def call(src: Tensor, dst: Tensor, tables: list[Tensor], order: Tensor) -> None:
        operator(*tables, order, order.flip(0), ITEM_BYTES, 1, 2, 32)

    return call


def to_pages(operator: Callable[..., None]) -> Callable[..., None]:
    def call(src: Tensor, dst: Tensor, tables: list[Tensor], order: Tensor) -> None:
        operator(tables[0], dst, order, order.flip(0), ITEM_BYTES, ITEM_BYTES, 1, 2, 32)

    return call


def by_tensors(operator: Callable[..., None]) -> Callable[..., None]:
    def call(src: Tensor, dst: Tensor, tables: list[Tensor], order: Tensor) -> None:
        operator(src, dst, order, order.flip(0), ITEM_BYTES, 2, 32)

    return call


def by_lists(operator: Callable[..., None]) -> Callable[..., None]:
    def call(src: Tensor, dst: Tensor, tables: list[Tensor], order: Tensor) -> None:
        operator([src], [dst], order, order.flip(0), 1)

    return call


OURS = {
    "wrapper": by_tables(lambda *a: kvops.transfer_kv_all_layer_mla(*a)),
    "kvops": by_tables(lambda *a: torch.ops.kvops.transfer_kv_all_layer_mla(*a)),
    "kvops-pages": to_pages(lambda *a: torch.ops.kvops.transfer_kv_all_layer_mla_lf_pf(*a)),
}
SGLANG = {
    "tables": by_tables(lambda *a: torch.ops.sgl_kernel.transfer_kv_all_layer_mla(*a)),
    "tensors": by_tensors(lambda *a: torch.ops.sgl_kernel.transfer_kv_per_layer_mla(*a)),
    "lists": by_lists(lambda *a: torch.ops.sgl_kernel.transfer_kv_direct.default(*a)),
}
every_name = pytest.mark.parametrize(
    "call", [*OURS.values(), *SGLANG.values()], ids=[*OURS, *SGLANG]
)


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check(call: Callable[..., None], **how: object) -> None:
    src, dst = torch.full([2, TOKENS, WIDTH], torch.nan)
    tables = [torch.tensor([t.data_ptr()]) for t in (src, dst)]
    value = torch.randn(TOKENS, WIDTH)

    def run(src: Tensor, dst: Tensor, tables: list[Tensor], order: Tensor) -> Tensor:
        dst.zero_()
        src.copy_(value)
        call(src, dst, tables, order)
        src.fill_(-1.0)
        return dst * 2 + src

    result = torch.compile(run, **how)(src, dst, tables, torch.arange(TOKENS))
    assert torch.equal(dst, value.flip(0))
    assert torch.equal(result, value.flip(0) * 2 - 1)
    assert (src == -1).all()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@every_name
def test_bytes_are_right(call: Callable[..., None], backend: str) -> None:
    check(call, backend=backend)


@every_name
def test_one_graph_is_refused(call: Callable[..., None]) -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported, match="transfer_kv"):
        check(call, backend="eager", fullgraph=True)
