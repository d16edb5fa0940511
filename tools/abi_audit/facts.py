"""What the audit knows about torch, CUDA and Python that no audited file says. One place, sourced.

Which shim came with which release is in ``shims``; which Python symbols are stable in abi3info.

Sources, by table:

* releases and PyPI's CUDA: the Linux wheels themselves, read in November 2026;
* libraries of a build: what /proc/self/maps shows after ``import torch`` of PyPI's 2.9.1 to 2.15.0
  and of 2.13.0+cpu (CUDA 12: 2.9 and 2.10; CUDA 13: 2.11 to 2.15), on a machine without a driver;
* promise: docs/source/notes/libtorch_stable_abi.md in pytorch/pytorch ("we promise not to modify
  them for at least 2 years after they are released");
* drivers: https://docs.nvidia.com/deploy/cuda-compatibility/ (minor version compatibility);
* glibc by tag: PEP 513, 571, 599 and 600; libstdc++ by tag: auditwheel's manylinux policies.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

#: Feature releases of torch that a prediction is made for, oldest first.
TORCH_RELEASES = ((2, 9), (2, 10), (2, 11), (2, 12), (2, 13), (2, 14), (2, 15))

#: The newest patch release of each on PyPI, which is what --verify installs.
PATCH_RELEASES = {
    (2, 9): "2.9.1",
    (2, 10): "2.10.0",
    (2, 11): "2.11.0",
    (2, 12): "2.12.1",
    (2, 13): "2.13.0",
    (2, 14): "2.14.1",
    (2, 15): "2.15.0",
}

#: How torch is built: without CUDA, or against one CUDA major.
BUILDS = ("cpu", "cu12", "cu13")
CUDA_BUILDS = ("cu12", "cu13")

# Loaded by `import torch`, by the builds that have it.
_TORCH_LIBRARIES = {
    "libtorch.so": BUILDS,
    "libtorch_cpu.so": BUILDS,
    "libtorch_python.so": BUILDS,
    "libtorch_global_deps.so": BUILDS,
    "libc10.so": BUILDS,
    "libshm.so": BUILDS,
    "libgomp.so.1": BUILDS,
    "libtorch_cuda.so": CUDA_BUILDS,
    "libc10_cuda.so": CUDA_BUILDS,
}

_CUDA_LIBRARIES = {
    "libcudart.so.12": ("cu12",),
    "libcudart.so.13": ("cu13",),
    "libcublas.so.12": ("cu12",),
    "libcublas.so.13": ("cu13",),
    "libcublasLt.so.12": ("cu12",),
    "libcublasLt.so.13": ("cu13",),
    "libcufft.so.11": ("cu12",),
    "libcufft.so.12": ("cu13",),
    "libcurand.so.10": CUDA_BUILDS,
    "libcusolver.so.11": ("cu12",),
    "libcusolver.so.12": ("cu13",),
    "libcusparse.so.12": CUDA_BUILDS,
    "libnvJitLink.so.12": ("cu12",),
    "libnvJitLink.so.13": ("cu13",),
    "libnvrtc.so.12": ("cu12",),
    "libnvrtc.so.13": ("cu13",),
    "libcudnn.so.9": CUDA_BUILDS,
    "libcusparseLt.so.0": CUDA_BUILDS,
    "libnccl.so.2": CUDA_BUILDS,
    "libcufile.so.0": CUDA_BUILDS,
    "libcupti.so.12": ("cu12",),
    "libcupti.so.13": ("cu13",),
    "libnvshmem_host.so.3": CUDA_BUILDS,
}

# Not loaded by `import torch` of these releases, though others do.
_NOT_LOADED_BY = {"libcurand.so.10": ((2, 15),), "libcusolver.so.11": ((2, 9),)}

_DRIVER_LIBRARIES = (
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
)

# What every glibc system with Python has; the loader's own name differs by architecture.
SYSTEM_LIBRARIES = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libc.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "ld-linux-*.so.*",
)

#: Libraries whose own dependencies bring libtorch_cpu.so, and with it the shims for every device.
BRINGS_SHIMS = ("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch_python.so")
#: Those that bring libtorch_cuda.so, where torch has one.
BRINGS_CUDA_SHIMS = ("libtorch.so", "libtorch_cuda.so", "libtorch_python.so")

# Exported by libtorch_cuda.so alone (nm of the CUDA and CPU wheels of 2.10 to 2.15).
_CUDA_ONLY_SHIMS = frozenset(
    {
        "aoti_torch_create_cuda_guard",
        "aoti_torch_create_cuda_stream_guard",
        "aoti_torch_delete_cuda_guard",
        "aoti_torch_delete_cuda_stream_guard",
        "aoti_torch_get_current_cuda_stream",
        "torch_c10_cuda_check_msg",
        "torch_c10_cuda_free_error_msg",
        "torch_cuda_stream_synchronize",
        "torch_get_cuda_stream_from_pool",
        "torch_get_current_cuda_blas_handle",
        "torch_set_current_cuda_stream",
    }
)


# The oldest Linux driver that serves a CUDA runtime of that major.
_DRIVER_FLOORS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

_GLIBC_OF_OLD_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
# glibc of the tag -> newest GLIBCXX, CXXABI that the tag allows, oldest first.
_LIBSTDCXX_OF_GLIBC = {
    (2, 5): ((3, 4, 8), (1, 3, 1)),
    (2, 12): ((3, 4, 13), (1, 3, 3)),
    (2, 17): ((3, 4, 19), (1, 3, 7)),
    (2, 24): ((3, 4, 22), (1, 3, 10)),
    (2, 27): ((3, 4, 24), (1, 3, 11)),
    (2, 31): ((3, 4, 28), (1, 3, 12)),
    (2, 34): ((3, 4, 29), (1, 3, 13)),
    (2, 35): ((3, 4, 30), (1, 3, 13)),
    (2, 39): ((3, 4, 33), (1, 3, 15)),
}


def builds_with(library: str) -> tuple[str, ...] | None:
    """The builds of torch that bring a library, or None if none of them is known to."""
    return _TORCH_LIBRARIES.get(library) or _CUDA_LIBRARIES.get(library)


def is_brought(library: str, torch: tuple[int, int], build: str) -> bool:
    """Whether `import torch` of that release and build loads a library."""
    return build in (builds_with(library) or ()) and torch not in _NOT_LOADED_BY.get(library, ())


def is_driver_library(library: str) -> bool:
    """Whether a library comes with NVIDIA's driver and with nothing else."""
    return library in _DRIVER_LIBRARIES


def is_system_library(library: str) -> bool:
    """Whether every glibc system has a library."""
    return any(fnmatchcase(library, pattern) for pattern in SYSTEM_LIBRARIES)


def provided_by(builds: tuple[str, ...], driver: bool) -> tuple[str, ...]:
    """The libraries that all of these builds bring, and the driver's if there is one."""
    known = {**_TORCH_LIBRARIES, **_CUDA_LIBRARIES}
    brought = tuple(name for name, has in known.items() if set(builds) <= set(has))
    return brought + (_DRIVER_LIBRARIES if driver else ())


def is_cuda_shim(name: str) -> bool:
    """Whether a shim exists only in torches built for CUDA."""
    return name in _CUDA_ONLY_SHIMS or name.startswith("aoti_torch_cuda_")


def driver_floor(cuda_major: int) -> str | None:
    """The oldest driver that a CUDA runtime of that major accepts."""
    return _DRIVER_FLOORS.get(cuda_major)


def glibc_of_tag(platform: str) -> tuple[int, int] | None:
    """The glibc that a wheel's platform tag promises, or None (``linux_x86_64``, musllinux).

    The architecture at its end may be left out.
    """
    name, _, rest = platform.partition("_")
    if name in _GLIBC_OF_OLD_TAGS:
        return _GLIBC_OF_OLD_TAGS[name]
    parts = rest.split("_")
    if name != "manylinux" or len(parts) < 2 or not (parts[0] + parts[1]).isdecimal():
        return None
    return int(parts[0]), int(parts[1])


def libstdcxx_of_glibc(
    glibc: tuple[int, int],
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The newest GLIBCXX and CXXABI in a wheel promised for that glibc.

    Between two tags that are known, what the older one allows; None before the first.
    """
    older = [known for known in _LIBSTDCXX_OF_GLIBC if known <= glibc]
    return _LIBSTDCXX_OF_GLIBC[older[-1]] if older else None
