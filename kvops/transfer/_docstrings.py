"""What the docstrings of several transfers say, written once.

The docstring of a transfer is its first sentence. `kernel_form` and `direct_form` complete it, so
that `help` shows all there is: arguments in the order of the signature, errors, notes, the source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from textwrap import fill
from typing import TypeVar

Transfer = TypeVar("Transfer", bound=Callable[..., None])

_RAISES = """RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths
    differ that should not. Nothing is written then."""

# ---- kernel forms

_PLACE = "dense, of any dtype (its bytes count), on the GPU of the indices or on the host."
_POOLS = {
    "lf": "[tokens, {item}], {of}one layer: " + _PLACE,
    "pf": "[tokens, layers, {item}], {of}all layers: " + _PLACE,
    "ph": "[pages, heads, page_size, layers, head_dim], {of}all layers: " + _PLACE,
    "tables": """uint64 or int64 [num_layers], stride 1, where the indices are: addresses of pools
        [tokens, {item}], {of}one layer each.""",
}
_INDICES = """int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there): the token
    of the {side} that each item is of, """
_RANGE = "in [0, tokens of the {side})."
_NO_RANGE = "not negative; an upper bound is not known."
_LAYOUT_DIM = "bytes of a token in the {side}, all layers; a multiple of `item_size`."

_KERNEL_NOTE = """Work of the current stream of the indices' GPU; nothing synchronises, and calls
    can be captured. """
_POOLS_NOTE = """Host memory should be pinned: a kernel then reads and writes it in place. With
    pageable memory the call is right, but slow: it waits for the stream, to copy the indices to the
    host and plan there; under capture it is refused."""
_TABLES_NOTE = """Addresses are taken at their word: memory behind them must be on that GPU, or
    pinned, and reach as far as the indices do, or the process may end. A null address is skipped
    (and recorded); on the CPU it raises. Compilers cannot see that memory: `torch.compile` breaks
    the graph here."""

_CHECKS_LITTLE = "checks no upper bound of an index, no size and no memory"
_CHECKS_A_TABLE = "looks at no address, and at one table's length only"
_CUTS_HEADS = "follows negative indices, and cuts off what heads have beyond a multiple of 8 bytes"


def kernel_form(src: str, dst: str) -> Callable[[Transfer], Transfer]:
    """Of a transfer from a layout to another, of `_POOLS`: everything follows from these."""
    has_heads = "ph" in (src, dst)
    item = "heads, head_dim" if has_heads else "*item"
    arguments = {
        **_side("src", "source", src, item, ""),
        **_side("dst", "target", dst, item, " Written."),
        "layer_id": "the layer of the source, in [0, src_layout_dim / item_size).",
        "item_size": "bytes of an item, a positive multiple of 8.",
        "num_layers": "length of the tables; positive"
        + ("." if dst == "tables" else ", at most dst_layout_dim / item_size."),
        "page_size": "tokens of a page; positive.",
        "head_num": "heads of an item; divides it into multiples of 8 bytes.",
        "block_quota": "at most so many thread blocks; positive. Ignored on the CPU.",
        "num_warps_per_block": "at most so many warps in each; positive. Ignored on the CPU.",
    }
    note = _KERNEL_NOTE + (_TABLES_NOTE if src == "tables" else _POOLS_NOTE)
    sglang = _CHECKS_A_TABLE if dst == "tables" else _CHECKS_LITTLE
    return _completer(arguments, note, _CUTS_HEADS if has_heads else sglang)


def _side(name: str, noun: str, layout: str, item: str, written: str) -> dict[str, str]:
    """The arguments of one side, whatever their names: of K, of V, of an MLA cache."""
    layers = "_layers" if layout == "tables" else ""
    pool, bound = _POOLS[layout] + written, _NO_RANGE if layout == "tables" else _RANGE
    return {
        f"{name}{layers}": pool.format(item=item, of=""),
        f"{name}_k{layers}": pool.format(item=item, of="K of "),
        f"{name}_v{layers}": f"as {name}_k{layers}, of V.{written}",
        f"{name}_indices": (_INDICES + bound).format(side=noun),
        f"{name}_layout_dim": _LAYOUT_DIM.format(side=noun),
    }


# ---- direct forms

_DIRECT_ARGUMENTS = {
    "src_indices": """int64 [num_items], stride 1, on the host or on that GPU: which token each item
        is of, in [0, tokens that every layer of the source has).""",
    "dst_indices": "int64 [num_items], likewise, of the target.",
    "page_size": "tokens of a page; positive, divides num_items.",
}
_DIRECT_NOTE = """Work of the current stream of the target's GPU (the source's, if the target is on
    the host). {waiting} Host memory should be pinned. Neighbours are copied as one; on the CPU
    copies take effect in order."""
_WAITS_FOR_INDICES = """Indices on the GPU are copied to the host first, which waits for the stream:
    the one synchronisation, and refused under capture. Indices on the host cost none, and calls can
    be captured with them; they are read before the call returns."""


def direct_form(
    *, sglang: str, waiting: str = _WAITS_FOR_INDICES, **arguments: str
) -> Callable[[Transfer], Transfer]:
    """Of a transfer with these `arguments`, and others that several have; what SGLang's does."""
    note = _DIRECT_NOTE.format(waiting=waiting)
    return _completer(_DIRECT_ARGUMENTS | arguments, note, sglang)


# ---- all


def _completer(
    arguments: Mapping[str, str], note: str, sglang: str
) -> Callable[[Transfer], Transfer]:
    def complete(transfer: Transfer) -> Transfer:
        if transfer.__doc__:  # without it, Python was told to keep no docstrings
            names = inspect.signature(transfer).parameters
            source = f"SGLang `sgl_kernel::{transfer.__name__}`, which {sglang}."
            transfer.__doc__ = "\n\n".join(
                [
                    transfer.__doc__,
                    "Args:\n" + "\n".join(_entry(f"{name}: {arguments[name]}") for name in names),
                    f"Raises:\n{_entry(_RAISES)}",
                    f"Note:\n{_paragraph(note)}",
                    f"Source:\n{_paragraph(source)}",
                ]
            )
        return transfer

    return complete


def _entry(text: str) -> str:
    return _paragraph(text, more="    ")


def _paragraph(text: str, more: str = "") -> str:
    """Wrapped as in a docstring of a file; lines after the first are indented by `more`."""
    indents = {"initial_indent": "    ", "subsequent_indent": "    " + more}
    return fill(" ".join(text.split()), width=96, break_on_hyphens=False, **indents)
