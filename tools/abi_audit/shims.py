"""Which torch release introduced which C shim.

torch-abi-audit carries PyTorch's own list (``shim_function_versions.txt``) and the shims of 2.9.
Compared with what torch 2.9.0, 2.10.0, 2.13.0 and 2.15.0 export and declare, it is right in every
version it states but lacks the names below: they were exported without being put on the list, or
are newer than the package.
"""

from __future__ import annotations

from functools import cache

from torch_abi_audit.torch_versions import Version, format_version, stable_shim_versions

#: The release of torch-abi-audit's baseline: its shims are as old as this or older.
BASELINE_TORCH: Version = (2, 9, 0)

#: The newest release whose exported shims were compared with the table.
NEWEST_TORCH: Version = (2, 15, 0)

_PREFIXES = ("aoti_torch_", "torch_")

_ABSENT_FROM_TORCH_ABI_AUDIT: dict[Version, tuple[str, ...]] = {
    (2, 10, 0): (
        "aoti_torch_cuda_caching_allocator_raw_alloc",
        "aoti_torch_cuda_caching_allocator_raw_delete",
        "aoti_torch_delete_c10_value_object",
        "aoti_torch_int64_to_ivalue",
        "aoti_torch_str_to_ivalue",
        "aoti_torch_strlist_to_ivalue",
        "aoti_torch_tensor_to_ivalue",
        "aoti_torch_mps__embedding_bag",
        "aoti_torch_mps__embedding_bag_dense_backward",
        "aoti_torch_mps__embedding_bag_forward_only",
        "aoti_torch_mps__embedding_bag_per_sample_weights_backward",
        "aoti_torch_xpu__scaled_dot_product_flash_attention",
        "aoti_torch_xpu__scaled_dot_product_flash_attention_backward",
        "aoti_torch_xpu__scaled_mm",
        "aoti_torch_xpu__scaled_mm_out",
        "aoti_torch_xpu__weight_int8pack_mm",
    ),
    (2, 15, 0): (
        "torch_device_from_pyobject",
        "torch_device_to_pyobject",
        "torch_dtype_from_pyobject",
        "torch_dtype_to_pyobject",
        "torch_is_tensor_pyobject",
    ),
}


@cache
def _versions() -> dict[str, Version]:
    ours = {name: v for v, names in _ABSENT_FROM_TORCH_ABI_AUDIT.items() for name in names}
    return ours | stable_shim_versions()  # where both know a shim, PyTorch's own list decides


def is_shim(symbol: str) -> bool:
    """Whether a C symbol is named like a shim, known or not."""
    return symbol.startswith(_PREFIXES)


def shim_since(symbol: str) -> Version | None:
    """The torch release that introduced a shim (2.9.0 or older for the baseline), or None."""
    return _versions().get(symbol)


def parse_torch_version(text: str) -> Version:
    """``"2.10"`` or ``"2.10.0"`` as ``(2, 10, 0)``."""
    parts = text.split(".")
    if len(parts) not in (2, 3) or not all(p.isdecimal() for p in parts):
        raise ValueError(f"not a torch version: {text!r} (expected for example 2.10)")
    major, minor, patch = (*map(int, parts), 0)[:3]
    return major, minor, patch


__all__ = [
    "BASELINE_TORCH",
    "NEWEST_TORCH",
    "Version",
    "format_version",
    "is_shim",
    "parse_torch_version",
    "shim_since",
]
