"""Items move between pools of any shape and layout as indexing with torch moves them.

The oracle is advanced indexing of tensors that have the documented shapes: it knows nothing of
addresses, unlike `kvops.reference`.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kvops
from devices import DEVICES
from transfer.inputs import KERNEL_LAYOUTS, Shape, parts_of

EXAMPLES = 25

shapes = st.builds(
    Shape,
    src_tokens=st.sampled_from([4, 8, 24]),
    dst_tokens=st.sampled_from([8, 12, 40]),
    layers=st.integers(1, 4),
    heads=st.integers(1, 3),
    head_elems=st.sampled_from([8, 16, 40, 136]),
    dtype=st.sampled_from([torch.uint8, torch.bfloat16, torch.float32]),
    page_size=st.sampled_from([1, 2, 4]),
    layer_id=st.just(0),
    limits=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    on_host=st.sampled_from(["", "src", "dst"]),
)
# Tokens that may be out of range by a little, or by a lot.
tokens = st.integers(-2, 45) | st.sampled_from([-(2**63), 2**31, 2**63 - 1])


def by_token(pool: Tensor, layout: str) -> Tensor:
    """A view of a pool as [tokens, layers, heads, head_elems]; one layer if it has only one."""
    if layout == "lf":
        return pool[:, None]
    if layout == "tables":
        return pool.transpose(0, 1)
    if layout == "ph":  # [pages, heads, page_size, layers, head_elems]
        return pool.permute(0, 2, 3, 1, 4)
    return pool


def move(src: Tensor, dst: Tensor, pairs: list[tuple[int, int]], paged: tuple[int, int]) -> None:
    """Items of all layers; a page size is 0 for pools that are not in pages."""
    for source, target in pairs:
        item = src[divmod(source, paged[0])] if paged[0] else src[source]
        if paged[1]:
            dst[divmod(target, paged[1])] = item
        else:
            dst[target] = item


def copied(shape: Shape, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(s, d) for s, d in pairs if 0 <= s < shape.src_tokens and 0 <= d < shape.dst_tokens]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", KERNEL_LAYOUTS)
@settings(max_examples=EXAMPLES)
@given(shape=shapes, pairs=st.lists(st.tuples(tokens, tokens), max_size=30), data=st.data())
def test_kernel_forms(
    name: str, device: str, shape: Shape, pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    layouts = KERNEL_LAYOUTS[name]
    pairs = list({target: (source, target) for source, target in pairs}.values())
    for side, layout in enumerate(layouts):
        if layout == "tables":  # how large the pools are nobody can tell
            limit = (shape.src_tokens, shape.dst_tokens)[side]
            pairs = [pair for pair in pairs if pair[side] < limit]
    layer = data.draw(st.integers(0, shape.layers - 1)) if "_per_layer" in name else 0
    generator = torch.Generator().manual_seed(len(pairs))
    where = torch.device(device)
    tensors, checks = {}, []
    for part in parts_of(name):
        pools = {
            side: shape.pool(layout, side, where, generator)
            for side, layout in zip(("src", "dst"), layouts, strict=True)
        }
        expected = pools["dst"].clone().cpu()
        source = by_token(pools["src"].cpu(), layouts[0])
        target = by_token(expected, layouts[1])
        if layouts[0] in ("pf", "ph"):
            source = source.narrow(-3, layer, 1)
        move(
            source,
            target,
            copied(shape, pairs),
            tuple(shape.page_size if layout == "ph" else 0 for layout in layouts),
        )
        checks.append((pools["dst"], expected))
        for side, layout in zip(("src", "dst"), layouts, strict=True):
            if layout == "tables":
                addresses = [entry.data_ptr() for entry in pools[side]]
                table = torch.tensor(addresses, dtype=torch.uint64).to(device)
                tensors[f"{side}{part}_layers"] = table
                tensors[f"_{side}{part}"] = pools[side]
            else:
                tensors[f"{side}{part}"] = pools[side]
    numbers = {
        "layer_id": layer,
        "item_size": shape.item_bytes,
        "src_layout_dim": shape.item_bytes * shape.layers,
        "dst_layout_dim": shape.item_bytes * shape.layers,
        "num_layers": shape.layers,
        "page_size": shape.page_size,
        "head_num": shape.heads,
        "block_quota": shape.limits[0],
        "num_warps_per_block": shape.limits[1],
    }
    indices = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).to(device)
    given = {**tensors, "src_indices": indices[:, 0].contiguous(), **numbers}
    given["dst_indices"] = indices[:, 1].contiguous()
    operator = getattr(kvops, name)
    schema = getattr(torch.ops.kvops, name).default._schema
    operator(**{a.name: given[a.name] for a in schema.arguments})
    if device == "cuda":  # a copy into host memory may still be under way
        torch.cuda.synchronize()
    for actual, wanted in checks:
        assert torch.equal(actual.cpu().view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction", ["to pages", "from pages"])
@settings(max_examples=EXAMPLES)
@given(
    shape=shapes,
    moves=st.lists(st.tuples(tokens, tokens), max_size=24),
    parts=st.integers(1, 2),
    spaced=st.booleans(),
)
def test_direct_forms(
    direction: str,
    device: str,
    shape: Shape,
    moves: list[tuple[int, int]],
    parts: int,
    spaced: bool,
) -> None:
    """Whole runs, single tokens and bad ones, with indices on the host or on the device."""
    pairs = list({target: (source, target) for source, target in moves}.values())
    pairs = pairs[: len(pairs) // shape.page_size * shape.page_size]
    generator, where = torch.Generator().manual_seed(len(pairs)), torch.device(device)
    to_pages = direction == "to pages"
    sides = ("lf", "pages") if to_pages else ("pages", "lf")
    lists = []
    for side, layout in zip(("src", "dst"), sides, strict=True):
        count = parts if layout == "pages" else parts * shape.layers
        pools = [shape.pool(layout, side, where, generator) for _ in range(count)]
        if spaced:  # room after every token, or after every page
            pools = [torch.stack([pool, pool], dim=1)[:, 0] for pool in pools]
        lists.append(pools)
    expected = [pool.cpu().clone() for pool in lists[1]]
    page = shape.page_size
    for i in range(parts * shape.layers):
        pool, layer = divmod(i, shape.layers)
        for source, target in copied(shape, pairs):
            if to_pages:
                place = (target // page, layer, target % page)
                expected[pool][place] = lists[0][i][source].cpu()
            else:
                place = (source // page, layer, source % page)
                expected[i][target] = lists[0][pool][place].cpu()
    indices = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    columns = [column.contiguous() for column in indices.T]
    columns[0] = columns[0].to(device)
    if to_pages:
        kvops.transfer_kv_all_layer_direct_lf_pf(*lists, *columns, page)
    else:
        kvops.transfer_kv_per_layer_direct_pf_lf(*lists, *columns, 0, page)
    if device == "cuda":
        torch.cuda.synchronize()
    for actual, wanted in zip(lists[1], expected, strict=True):
        assert torch.equal(
            actual.cpu().contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8)
        )
