"""Arguments of the transfers: pools of any layout, indices, and the cases made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gather.edits import change, every_second
from gather.paged import poisoned, random_bits
from registry import UNBOUNDED, Args, OpCase, Refusal, Sample, entry_name


@dataclass(frozen=True)
class Shape:
    """Pools of one call; tokens and heads are those of both sides."""

    src_tokens: int = 24
    dst_tokens: int = 40
    layers: int = 3
    heads: int = 2
    head_elems: int = 8
    dtype: torch.dtype = torch.bfloat16
    page_size: int = 4
    layer_id: int = 1
    items: int = 12  # a multiple of page_size for direct forms
    in_pages: bool = False  # whole pages go to whole pages, in some order
    limits: tuple[int, int] = (8, 32)
    on_host: str = ""  # "src" or "dst": in pinned memory even if the device is a GPU
    indices_on_device: bool = True  # of direct forms

    @property
    def item_bytes(self) -> int:
        return self.heads * self.head_elems * self.dtype.itemsize

    def tokens(self, side: str) -> int:
        return self.src_tokens if side == "src" else self.dst_tokens

    def sizes(self, layout: str, side: str) -> list[int]:
        """Of a pool: lf is one layer, tables are all of them."""
        tokens, item = self.tokens(side), [self.heads, self.head_elems]
        pages = tokens // self.page_size
        return {
            "lf": [tokens, *item],
            "tables": [self.layers, tokens, *item],
            "pf": [tokens, self.layers, *item],
            "ph": [pages, self.heads, self.page_size, self.layers, self.head_elems],
            "pages": [pages, self.layers, self.page_size, *item],
        }[layout]

    def pool(
        self, layout: str, side: str, device: torch.device, generator: torch.Generator
    ) -> Tensor:
        """Random bits in a source, poison in a target."""
        sizes = self.sizes(layout, side)
        is_source = side == "src"
        tensor = random_bits(sizes, self.dtype, generator)
        tensor = tensor if is_source else poisoned(sizes, self.dtype)
        return pinned(tensor, device) if self.on_host == side else tensor.to(device)

    def indices(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Distinct targets; sources may repeat, unless whole pages move."""
        if not self.in_pages:
            sources = torch.randint(self.src_tokens, [self.items], generator=generator)
            return sources, torch.randperm(self.dst_tokens, generator=generator)[: self.items]
        count, offsets = self.items // self.page_size, torch.arange(self.page_size)
        pages = (
            torch.randperm(tokens // self.page_size, generator=generator)[:count]
            for tokens in (self.src_tokens, self.dst_tokens)
        )
        sources, targets = ((p[:, None] * self.page_size + offsets).flatten() for p in pages)
        return sources, targets


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Host memory that a kernel of the device reaches."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def in_schema_order(name: str, args: Args) -> Args:
    """The same arguments as the schema lists them, memory behind tables last."""
    order = [a.name for a in getattr(torch.ops.kvops, name).default._schema.arguments]
    memory = [key for key in args if key.startswith("_")]
    entries = [key for wanted in order for key in args if entry_name(key) == wanted]
    return {key: args[key] for key in (*entries, *memory)}


# ---- kernel forms

KERNEL_LAYOUTS = {
    "transfer_kv_per_layer": ("lf", "lf"),
    "transfer_kv_per_layer_pf_lf": ("pf", "lf"),
    "transfer_kv_per_layer_ph_lf": ("ph", "lf"),
    "transfer_kv_per_layer_mla": ("lf", "lf"),
    "transfer_kv_per_layer_mla_pf_lf": ("pf", "lf"),
    "transfer_kv_all_layer": ("tables", "tables"),
    "transfer_kv_all_layer_lf_pf": ("tables", "pf"),
    "transfer_kv_all_layer_lf_ph": ("tables", "ph"),
    "transfer_kv_all_layer_mla": ("tables", "tables"),
    "transfer_kv_all_layer_mla_lf_pf": ("tables", "pf"),
}


def parts_of(name: str) -> tuple[str, ...]:
    """Endings of the pools' names: K and V, or one MLA cache."""
    return ("",) if "_mla" in name else ("_k", "_v")


def kernel_args(name: str, shape: Shape, device: torch.device, generator: torch.Generator) -> Args:
    args: Args = {}
    layouts = dict(zip(("src", "dst"), KERNEL_LAYOUTS[name], strict=True))
    for side, layout in layouts.items():
        for part in parts_of(name):
            pool = shape.pool(layout, side, device, generator)
            if layout == "tables":
                addresses = [layer.data_ptr() for layer in pool]
                table = torch.tensor(addresses, dtype=torch.uint64)
                args[f"{side}{part}_layers"] = table.to(device)
                args[f"_{side}{part}"] = pool
            else:
                args[f"{side}{part}"] = pool
    sources, targets = shape.indices(generator)
    args |= {"src_indices": sources.to(device), "dst_indices": targets.to(device)}
    wanted = {a.name for a in getattr(torch.ops.kvops, name).default._schema.arguments}
    numbers = {
        "layer_id": shape.layer_id,
        "item_size": shape.item_bytes,
        "src_layout_dim": shape.item_bytes * shape.layers,
        "dst_layout_dim": shape.item_bytes * shape.layers,
        "num_layers": shape.layers,
        "page_size": shape.page_size,
        "head_num": shape.heads,
        "block_quota": shape.limits[0],
        "num_warps_per_block": shape.limits[1],
    }
    args |= {key: value for key, value in numbers.items() if key in wanted}
    return in_schema_order(name, args)


def kernel_sample(name: str, sample_id: str, shape: Shape) -> Sample:
    return Sample(sample_id, lambda device, generator: kernel_args(name, shape, device, generator))


def _resized(size: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.repeat(2)[:size]


def _item_refusals(shape: Shape) -> Iterator[Refusal]:
    item = shape.item_bytes
    yield Refusal(
        "item size of 12",
        change("item_size", lambda n: 12),
        "item_size must be a positive multiple of 8 bytes, got 12",
    )
    yield Refusal(
        "no item size",
        change("item_size", lambda n: 0),
        "item_size must be a positive multiple of 8 bytes, got 0",
    )
    yield Refusal(
        "negative item size",
        change("item_size", lambda n: -n),
        f"item_size must be a positive multiple of 8 bytes, got -{item}",
    )
    yield Refusal(
        "no block", change("block_quota", lambda n: 0), "block_quota must be positive, got 0"
    )
    yield Refusal(
        "no warp",
        change("num_warps_per_block", lambda n: -1),
        "num_warps_per_block must be positive, got -1",
    )


def _index_refusals(items: int) -> Iterator[Refusal]:
    yield Refusal(
        "fewer targets",
        change("dst_indices", lambda t: t[:-1]),
        rf"dst_indices must have shape \[{items}\], got \[{items - 1}\]",
    )
    yield Refusal(
        "index dtype", change("src_indices", Tensor.int), "src_indices must have dtype int64"
    )
    yield Refusal(
        "target dtype", change("dst_indices", Tensor.int), "dst_indices must have dtype int64"
    )
    yield Refusal(
        "index rank",
        change("src_indices", lambda t: t[None]),
        "src_indices must have 1 dimensions",
    )
    yield Refusal(
        "index stride", change("src_indices", every_second), "src_indices must have stride 1"
    )
    yield Refusal(
        "target stride", change("dst_indices", every_second), "dst_indices must have stride 1"
    )


_UNITS = {"lf": "items", "pf": "tokens", "ph": "pages"}


def _pool_refusals(name: str, part: str) -> Iterator[Refusal]:
    layouts = dict(zip(("src", "dst"), KERNEL_LAYOUTS[name], strict=True))
    for side, layout in layouts.items():
        if layout == "tables":
            table = f"{side}{part}_layers"
            yield Refusal(
                f"{table} too short",
                change(table, lambda t: t[:-1]),
                rf"{table} must have shape \[3\], got \[2\]",
            )
            yield Refusal(
                f"{table} of 32 bits",
                change(table, lambda t: t.view(torch.int64).int()),
                f"{table} must have dtype uint64 or int64 .*, got int32",
            )
        else:
            pool = f"{side}{part}"
            yield Refusal(
                f"{pool} with gaps", change(pool, every_second), f"{pool} must have stride 1"
            )
            yield Refusal(
                f"{pool} of another layout",
                change(pool, lambda t: t.flatten()[1:]),
                rf"{pool} must hold whole {_UNITS[layout]} of \d+ bytes, got \d+ bytes",
            )


def _size_refusals(name: str, shape: Shape) -> Iterator[Refusal]:
    layers, item = shape.layers, shape.item_bytes
    dims = {"src_layout_dim": ("_pf_lf", "_ph_lf"), "dst_layout_dim": ("_lf_pf", "_lf_ph")}
    for dim, endings in dims.items():
        if name.endswith(endings):
            yield Refusal(
                f"{dim} of no items",
                change(dim, lambda n: n + 8),
                rf"{dim} must be a positive multiple of item_size .*, got {item * layers + 8}",
            )
            yield Refusal(
                f"no {dim}", change(dim, lambda n: 0), f"{dim} must be a positive multiple"
            )
    if name.endswith(("_pf_lf", "_ph_lf")):
        for layer in (layers, -1, 2**63 - 1):
            yield Refusal(
                f"layer {layer}",
                change("layer_id", lambda n, layer=layer: layer),
                rf"layer_id must be in \[0, {layers}\), .*, got {layer}",
            )
    if name.endswith(("_lf_pf", "_lf_ph")):
        yield Refusal(
            "more layers than the target has",
            change("dst_layout_dim", lambda n: 2 * item),
            "num_layers must be at most 2, the items of dst_layout_dim, got 3",
        )
    if "_all_layer" in name:
        yield Refusal(
            "no layer", change("num_layers", lambda n: 0), "num_layers must be positive, got 0"
        )
    if name.endswith(("_ph_lf", "_lf_ph")):
        yield Refusal(
            "no page size", change("page_size", lambda n: 0), "page_size must be positive, got 0"
        )
        yield Refusal(
            "no heads", change("head_num", lambda n: 0), "head_num must be positive, got 0"
        )
        yield Refusal(
            "heads of 4 bytes",
            change("head_num", lambda n: item // 4),
            f"head_num must divide item_size .* into multiples of 8 bytes, got {item // 4}",
        )


def _limit(name: str, side: str) -> Callable[[Args], int]:
    """Tokens of a side; of tables nobody knows."""
    layout = KERNEL_LAYOUTS[name][0 if side == "src" else 1]
    if layout == "tables":
        return lambda args: UNBOUNDED
    token = {"lf": "item_size", "pf": f"{side}_layout_dim", "ph": f"{side}_layout_dim"}[layout]
    pools = [f"{side}{part}" for part in parts_of(name)]

    def limit(args: Args) -> int:
        tokens = min(args[pool].nbytes for pool in pools) // args[token]
        return tokens // args["page_size"] * args["page_size"] if layout == "ph" else tokens

    return limit


def kernel_case(name: str) -> OpCase:
    """Samples and refusals that every kernel form has."""
    shape = Shape()
    samples = {
        "bfloat16": shape,
        "uint8": replace(shape, dtype=torch.uint8, heads=1, head_elems=24, limits=(1, 1)),
        "in-pages": replace(shape, in_pages=True, items=16, head_elems=64, limits=(1000, 1000)),
        "float32-from-host": replace(shape, dtype=torch.float32, on_host="src", limits=(2, 4)),
        "float32-to-host": replace(shape, dtype=torch.float32, on_host="dst", heads=4),
        "one-layer-one-token": replace(shape, layers=1, layer_id=0, items=1),
        "no-item": replace(shape, items=0),
    }
    layouts = KERNEL_LAYOUTS[name]
    tables = [
        side for side, layout in zip(("src", "dst"), layouts, strict=True) if layout == "tables"
    ]
    written = "_{}" if layouts[1] == "tables" else "{}"
    limits = {f"{side}_indices": _limit(name, side) for side in ("dst", "src")}
    return OpCase(
        name=name,
        samples=tuple(kernel_sample(name, key, value) for key, value in samples.items()),
        refusals=(
            *_item_refusals(shape),
            *_index_refusals(shape.items),
            *(wrong for part in parts_of(name) for wrong in _pool_refusals(name, part)),
            *_size_refusals(name, shape),
        ),
        outputs=tuple(written.format(f"dst{part}") for part in parts_of(name)),
        hostile=limits,
        addresses={
            f"{side}{part}_layers": f"_{side}{part}" for side in tables for part in parts_of(name)
        },
    )


# ---- direct forms

DIRECT_LISTS = {
    "transfer_kv_direct": ("src_layers", "dst_layers"),
    "transfer_kv_per_layer_direct_pf_lf": ("src_ptrs", "dst_ptrs"),
    "transfer_kv_all_layer_direct_lf_pf": ("src_ptrs", "dst_ptrs"),
}


def with_entries(name: str, tensors: Sequence[Tensor]) -> Args:
    """The arguments for a list: one for each entry, or an empty list."""
    return {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors)} or {name: []}


def direct_tensors(
    name: str, shape: Shape, parts: int, device: torch.device, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """Sources, then targets."""
    paged = {"_pf_lf": "src", "_lf_pf": "dst"}.get(name[-6:])
    layers = 1 if name.endswith("_pf_lf") else shape.layers
    for side in ("src", "dst"):
        count, layout = (parts, "pages") if side == paged else (parts * layers, "lf")
        yield [shape.pool(layout, side, device, generator) for _ in range(count)]


def direct_args(
    name: str, shape: Shape, parts: int, device: torch.device, generator: torch.Generator
) -> Args:
    args: Args = {}
    found = direct_tensors(name, shape, parts, device, generator)
    for list_name, tensors in zip(DIRECT_LISTS[name], found, strict=True):
        args |= with_entries(list_name, tensors)
    # Read when a call is captured, so the same for all contents that are replayed.
    sources, targets = shape.indices(torch.Generator().manual_seed(0))
    where = device if shape.indices_on_device else "cpu"
    args |= {"src_indices": sources.to(where), "dst_indices": targets.to(where)}
    if name.endswith("_pf_lf"):
        args["layer_id"] = shape.layer_id
    args["page_size"] = shape.page_size
    return args


def direct_sample(name: str, sample_id: str, shape: Shape, parts: int = 2) -> Sample:
    return Sample(
        sample_id,
        lambda device, generator: direct_args(name, shape, parts, device, generator),
    )


def without_list(list_name: str) -> Callable[[Args], None]:
    """An edit: the list is empty."""

    def run(args: Args) -> None:
        kept: Args = {}
        for key, value in args.items():
            is_entry = entry_name(key) == list_name
            kept[list_name if is_entry else key] = [] if is_entry else value
        args.clear()
        args.update(kept)

    return run


def every_second_token(tensor: Tensor) -> Tensor:
    """The same items, each followed by room for one more."""
    spaced = torch.stack([tensor, tensor], dim=1)
    return spaced[:, 0]


def direct_case(
    name: str, limits: dict[str, Callable[[Args], int]], refusals: Sequence[Refusal]
) -> OpCase:
    """Samples and refusals that the direct forms with indices have."""
    host_indices = replace(Shape(), indices_on_device=False)
    in_pages = replace(host_indices, in_pages=True, items=16)
    samples = {
        "bfloat16": (in_pages, 2),
        "uint8-scattered": (replace(host_indices, dtype=torch.uint8, heads=1, head_elems=7), 2),
        "mla": (replace(in_pages, heads=1, head_elems=72), 1),
        "indices-on-device": (replace(in_pages, indices_on_device=True), 2),
        "float32-from-host": (replace(in_pages, dtype=torch.float32, on_host="src"), 2),
        "float32-to-host": (replace(in_pages, dtype=torch.float32, on_host="dst"), 1),
        "page-of-one": (replace(host_indices, page_size=1, items=5), 2),
        "no-item": (replace(host_indices, items=0), 2),
    }
    src, dst = (f"{list_name}[0]" for list_name in DIRECT_LISTS[name])
    return OpCase(
        name=name,
        samples=tuple(direct_sample(name, key, *value) for key, value in samples.items()),
        refusals=(
            *_index_refusals(in_pages.items),
            Refusal(
                "no page size",
                change("page_size", lambda n: 0),
                "page_size must be positive, got 0",
            ),
            Refusal(
                "rest of a page",
                lambda args: args.update(
                    {key: args[key][:-1] for key in ("src_indices", "dst_indices")}
                ),
                r"src_indices must have a multiple of page_size \(4\) elements, got 15",
            ),
            Refusal(
                "dtype of a layer",
                change(dst, Tensor.half),
                r"dst_\w+\[0\] must have dtype bfloat16 like src_\w+\[0\], got float16",
            ),
            Refusal("gaps in src", change(src, every_second), r"src_\w+\[0\] must have stride 1"),
            Refusal("gaps in dst", change(dst, every_second), r"dst_\w+\[0\] must have stride 1"),
            *refusals,
        ),
        outputs=(DIRECT_LISTS[name][1],),
        hostile=limits,
    )


def rows(list_name: str) -> Callable[[Args], int]:
    """Tokens that all layers of a list have."""
    return lambda args: min(t.size(0) for t in _entries(args, list_name))


def tokens_in_pages(list_name: str) -> Callable[[Args], int]:
    return lambda args: min(t.size(0) for t in _entries(args, list_name)) * args["page_size"]


def _entries(args: Args, list_name: str) -> list[Any]:
    return [value for key, value in args.items() if key.startswith(f"{list_name}[")]
