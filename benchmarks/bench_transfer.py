"""Transfers on CPU beside advanced indexing."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import kvops
from harness import Row

TOKENS, LAYERS, PAGE, WIDTH = 4096, 8, 64, 576


def rows() -> Iterator[Row]:
    """All tokens of an MLA cache of 8 layers, whole pages to other places."""
    yield _kernel_form()
    yield _direct_form()


class _Pools:
    """Layer-first pools of bfloat16, and which token goes where."""

    def __init__(self) -> None:
        self.src = torch.randn(LAYERS, TOKENS, WIDTH).bfloat16()
        self.dst = torch.empty_like(self.src)
        pages, offsets = TOKENS // PAGE, torch.arange(PAGE)
        self.source, self.target = (
            (torch.randperm(pages)[:, None] * PAGE + offsets).flatten() for _ in range(2)
        )

    def index_copy(self) -> None:
        self.dst.index_copy_(1, self.target, self.src.index_select(1, self.source))


def _kernel_form() -> Row:
    p = _Pools()
    tables = [torch.tensor([layer.data_ptr() for layer in pool]) for pool in (p.src, p.dst)]
    item = WIDTH * p.src.element_size()
    return Row(
        name=f"transfer_kv_all_layer_mla, {LAYERS} x {TOKENS} x {WIDTH}",
        bytes=2 * p.src.nbytes,
        run=lambda: kvops.transfer_kv_all_layer_mla(*tables, p.source, p.target, item, LAYERS),
        peers={"index_copy_": p.index_copy},
        target_fraction=0.6,
        target_speedup=1.0,
    )


def _direct_form() -> Row:
    p = _Pools()
    src, dst = list(p.src), list(p.dst)
    return Row(
        name=f"transfer_kv_direct, {LAYERS} x {TOKENS} x {WIDTH}",
        bytes=2 * p.src.nbytes,
        run=lambda: kvops.transfer_kv_direct(src, dst, p.source, p.target, PAGE),
        peers={"index_copy_": p.index_copy},
        target_fraction=0.6,
        target_speedup=1.0,
    )
