"""Names for unstable symbols that a reader knows from the source, and what to write instead.

The replacements are those of the headers torch/csrc/stable and torch/headeronly, and of PyTorch's
migration notes (docs/source/notes/libtorch_stable_abi.md). The first pattern that matches the
demangled symbol decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_STABLE_TENSOR = "torch::stable::Tensor"
_STABLE_LIBRARY = "STABLE_TORCH_LIBRARY, STABLE_TORCH_LIBRARY_IMPL and TORCH_BOX"
_BOXED = "arguments of TORCH_BOX functions: int64_t, double, bool, std::string, std::vector"

# Pattern on the demangled name, the API as written in source code, the stable replacement.
_APIS = tuple(
    (re.compile(pattern), api, replacement)
    for pattern, api, replacement in (
        (r"torchCheckFail|torchInternalAssertFail", "TORCH_CHECK", "STD_TORCH_CHECK"),
        (r"\bc10::(Error|SourceLocation)\b|for c10::Error", "c10::Error", "STD_TORCH_CHECK"),
        (r"c10_cuda_check_implementation", "C10_CUDA_CHECK", "STD_CUDA_CHECK"),
        (r"\bc10::(Warning|warn|warnDeprecated)\b|c10::WarningUtils", "TORCH_WARN", None),
        (
            r"\bc10::impl::cow::|warnDeprecatedDataPtr|throwNullDataPtrError"
            r"|throw_data_ptr_access_error|TensorBase::(const_|mutable_)?data_ptr<",
            "Tensor::data_ptr",
            "Tensor::const_data_ptr and mutable_data_ptr of torch::stable",
        ),
        (
            r"\btorch::(Library|CppFunction|detail::TorchLibraryInit)\b|infer_schema|parseSchema"
            r"|FunctionSchema",
            "TORCH_LIBRARY",
            _STABLE_LIBRARY,
        ),
        (
            r"CUDAStream|getStreamFromPool",
            "c10::cuda::CUDAStream",
            "torch::stable::accelerator::getCurrentStream, aoti_torch_get_current_cuda_stream",
        ),
        (
            r"c10::cuda::(\w*SetDevice|GetDevice|ExchangeDevice|device_count|current_device)"
            r"|(Device|CUDA|Stream)Guard|device_guard_impl|GPUTrace",
            "DeviceGuard",
            "torch::stable::accelerator::DeviceGuard",
        ),
        (
            r"getCurrentDeviceProperties|getDeviceProperties|at::cuda::warp_size",
            "at::cuda::getCurrentDeviceProperties",
            "cudaDeviceGetAttribute",
        ),
        (
            r"CUDABlas(Lt)?Handle",
            "at::cuda::getCurrentCUDABlasHandle",
            "torch_get_current_cuda_blas_handle",
        ),
        (
            r"CUDACachingAllocator|c10::Allocator|GetAllocator",
            "torch's allocator",
            "torch::stable::empty and new_empty",
        ),
        (r"TensorMaker|from_blob", "at::from_blob", "torch::stable::from_blob (torch 2.11)"),
        (r"pybind11::detail::type_caster<", "pybind11 casters of torch", _STABLE_LIBRARY),
        (
            r"\bc10::SymInt|\bc10::SymBool|SymbolicShapeMeta|SymNode",
            "Tensor::sizes and strides",
            "sizes, size and stride of torch::stable::Tensor",
        ),
        (
            r"TensorImpl\b|StorageImpl\b|UndefinedTensorImpl|AutogradMeta",
            "at::Tensor",
            _STABLE_TENSOR,
        ),
        (r"ExcludeDispatchKeyGuard|GradMode|InferenceMode", "dispatch and grad guards", None),
        (r"\btorch::(autograd|jit)::", "torch::autograd, torch::jit", None),
        (r"IValue|\bc10::(\w*Type|ivalue::\w+)\b|ListImpl|DictImpl", "c10::IValue", _BOXED),
        (r"\bc10::ScalarType\b|\bc10::Half|BFloat16|Float8", "dtypes", "torch::headeronly"),
        (r"HeaderOnlyArrayRef|c10::ArrayRef", "c10::ArrayRef", "torch::headeronly's, std::vector"),
        (r"\bat::(Tensor|TensorBase)\b", "at::Tensor", _STABLE_TENSOR),
    )
)

_OPERATOR = re.compile(r"\bat::_ops::(\w+)::(?:call|redispatch)\b")
_SCOPE = re.compile(r"(?<![\w:])(at|c10|caffe2|torch)(?:::(\w+)(?=::))?")

# Overloads of at::_ops that torch/csrc/stable/ops.h of torch 2.15 wraps.
_STABLE_OPERATORS = frozenset(
    """
    amax bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift clone contiguous copy_ empty
    empty_like fill_ flatten floor_divide from_blob full index_select is_pinned matmul narrow
    new_empty new_zeros pad permute reshape select sort squeeze subtract sum sum_out to transpose
    unsqueeze view zero_
    """.split()  # noqa: SIM905 (a list would take 40 lines)
)


@dataclass(frozen=True)
class ApiGroup:
    """The unstable symbols that one API of torch brings into a library."""

    api: str
    #: What to use instead; None where the stable ABI has nothing.
    replacement: str | None
    #: Outermost namespaces, with the one below: ``at::_ops``, ``c10::cuda``.
    namespaces: tuple[str, ...]
    undefined: int
    exported: int


def api_of(display: str) -> tuple[str, str | None]:
    """The API behind a demangled unstable symbol, and its replacement."""
    operator = _OPERATOR.search(display)
    if operator is not None:
        return "ATen operators", _operator_replacement(operator[1])
    for pattern, api, replacement in _APIS:
        if pattern.search(display):
            return api, replacement
    return "other", None


def namespace_of(display: str) -> str:
    """The namespace that makes a symbol unstable, two levels deep."""
    match = _SCOPE.search(display)
    if match is None:
        return "?"
    return f"{match[1]}::{match[2]}" if match[2] else match[1]


def group_symbols(undefined: Iterable[str], exported: Iterable[str]) -> tuple[ApiGroup, ...]:
    """Group demangled unstable symbols, the largest group first.

    Args:
        undefined: demangled names, one per mangled symbol (equal names are several symbols).
        exported: likewise.
    """
    counts: dict[str, Counter[str]] = {}
    namespaces: dict[str, set[str]] = {}
    replacements: dict[str, set[str]] = {}
    for side, names in (("undefined", undefined), ("exported", exported)):
        for name in names:
            api, replacement = api_of(name)
            counts.setdefault(api, Counter())[side] += 1
            namespaces.setdefault(api, set()).add(namespace_of(name))
            replacements.setdefault(api, set()).update([replacement] if replacement else [])
    groups = (
        ApiGroup(
            api,
            "; ".join(sorted(replacements[api])) or None,
            tuple(sorted(namespaces[api])),
            count["undefined"],
            count["exported"],
        )
        for api, count in counts.items()
    )
    return tuple(sorted(groups, key=lambda g: (-(g.undefined + g.exported), g.api)))


def _operator_replacement(overload: str) -> str:
    for name in (overload, overload.rpartition("_")[0], overload.partition("_")[0]):
        if name in _STABLE_OPERATORS:
            return f"torch::stable::{name}"
    return "torch_call_dispatcher"
