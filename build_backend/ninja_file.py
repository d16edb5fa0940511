"""Writes build.ninja: which sources make which library, with which flags.

Sources are found by folder, so adding an operator needs no change here:
  */cpu/kernels/*.cpp   torch-free CPU loops, compiled once per SIMD level (KVOPS_ISA)
  */cuda/*              only in _C_cuda; nothing outside of cuda/ folders needs CUDA
  */cpu/*, registration/*.cpp   only in _C
  every other *.cpp     both: checks and validation are shared
Dependency files (*.d) stay beside the objects: tools/check_includes.py reads them.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import CudaToolchain
from torch_headers import TorchHeaders

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "csrc" / "libtorch_stable"

# SIMD levels of the CPU kernels: name -> flags. Chosen at run time (common/isa.h), so these flags
# must never reach another file.
X86_LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *["-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512"],
        *["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    ],
}

# Parts of common/ that _C_cuda gets from _C at run time or does not need.
CPU_ONLY = {"checked_mode", "isa"}


@dataclass
class Plan:
    """One library: objects are (source, object, rule, extra flags); stubs have torch's sonames."""

    library: str
    torch_stubs: tuple[str, ...]
    libraries: str = ""
    objects: list[tuple[Path, str, str, str]] = field(default_factory=list)


def simd_levels() -> dict[str, list[str]]:
    """The SIMD levels that this machine's compiler builds."""
    if platform.machine() in ("x86_64", "AMD64"):
        return X86_LEVELS
    return {"baseline": []}


def write_ninja_file(
    folder: Path,
    cxx: str,
    headers: TorchHeaders,
    cuda: CudaToolchain | None,
    version: str,
) -> list[str]:
    """Write folder/build.ninja; return the libraries it makes (`_C.abi3.so`, ...)."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = [_cpu_plan()] + ([_cuda_plan(cuda)] if cuda else [])
    lines = [*_variables(cxx, headers, cuda, version), *_rules(cuda)]
    for stub in plans[-1].torch_stubs:
        lines += [f"build {stub}: stub", f"  soname = {Path(stub).name}"]
    for plan in plans:
        for source, target, rule, flags in plan.objects:
            lines += [f"build {target}: {rule} {_escape(source)}", f"  extra = {flags}"]
        inputs = " ".join([*(target for _, target, _, _ in plan.objects), *plan.torch_stubs])
        lines += [f"build {plan.library}: link {inputs} | $exports"]
        lines += [f"  libraries = {plan.libraries}"]
    text = "\n".join(lines) + "\n"
    target = folder / "build.ninja"
    if not target.exists() or target.read_text() != text:
        target.write_text(text)
    return [plan.library for plan in plans]


def _variables(
    cxx: str, headers: TorchHeaders, cuda: CudaToolchain | None, version: str
) -> list[str]:
    build = f"torch {headers.version} headers"
    cuda_build = f"CUDA {cuda.version}, {' '.join(cuda.archs)}" if cuda else ""
    # 0x020a... is 2.10 (0x0210... would be 2.16). -ffp-contract=off: byte-exact paths round after
    # every operation, on every SIMD level alike.
    common = [
        *["-std=c++20", "-O3", "-DNDEBUG", "-DTORCH_TARGET_VERSION=0x020a000000000000ULL"],
        *[f"-I{_escape(SOURCES)}", f"-isystem {_escape(headers.include)}"],
        f"-DKVOPS_VERSION='\"{version}\"'",
        f"-DKVOPS_BUILD='\"{build}\"'",
        f"-DKVOPS_CUDA_BUILD='\"{cuda_build}\"'",
    ]
    if list(simd_levels()) == ["baseline"]:
        common.append("-DKVOPS_ONLY_BASELINE")
    host = [
        *["-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-math-errno"],
        *["-fno-trapping-math", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections"],
        f"-ffile-prefix-map={_escape(ROOT)}/=",
    ]
    exports = _escape(SOURCES / "registration" / "exports.map")
    return [
        "ninja_required_version = 1.5",
        f"cxx = {cxx}",
        f"nvcc = {cuda.nvcc if cuda else ''}",
        f"common = {' '.join(common)}",
        f"host = {' '.join(host)}",
        f"nvcc_host = {' '.join('-Xcompiler=' + flag for flag in host)}",
        f"gencode = {' '.join(cuda.gencode_flags()) if cuda else ''}",
        f"exports = {exports}",
        "",
    ]


def _rules(cuda: CudaToolchain | None) -> list[str]:
    # --no-as-needed: libtorch.so is what makes libtorch_cuda's shims visible to _C_cuda where
    # torch has one; nothing in it is referenced directly.
    rules = [
        *["rule stub", "  command = echo | $cxx -shared -x c - -o $out -Wl,-soname,$soname"],
        "rule cxx",
        "  command = $cxx $common $host -Wall -Wextra $extra -MD -MF $out.d -c $in -o $out",
        *["  depfile = $out.d", "  description = C++ $out"],
        "rule link",
        "  command = $cxx -shared -s -o $out -Wl,--no-as-needed $in -Wl,--as-needed $libraries"
        " -Wl,--version-script=$exports -Wl,--gc-sections -Wl,-z,relro,-z,now",
        "  description = link $out",
    ]
    if cuda:
        rules += [
            "rule nvcc",
            "  command = $nvcc $common $nvcc_host -DUSE_CUDA $gencode --expt-relaxed-constexpr"
            " -Xfatbin=-compress-all $extra -MD -MF $out.d -c $in -o $out",
            *["  depfile = $out.d", "  description = CUDA $out"],
        ]
    return [*rules, ""]


def _cpu_plan() -> Plan:
    plan = Plan("_C.abi3.so", ("stubs/libtorch_cpu.so",))
    for source in sorted(SOURCES.rglob("*.cpp")):
        parts = source.relative_to(SOURCES).parts
        if "cuda" in parts:
            continue
        name = "/".join(parts)
        if "kernels" in parts:
            for level, flags in simd_levels().items():
                # Attention is not byte-exact: it may fuse multiplications and additions.
                contract = ["-ffp-contract=fast"] if parts[0] == "attention" else []
                extra = " ".join([f"-DKVOPS_ISA={level}", *flags, *contract])
                plan.objects.append((source, f"{name}.{level}.o", "cxx", extra))
        else:
            plan.objects.append((source, f"{name}.o", "cxx", ""))
    return plan


def _cuda_plan(cuda: CudaToolchain) -> Plan:
    folders = " ".join(f"-L{_escape(Path(folder))}" for folder in cuda.library_folders)
    stubs = ("stubs/libtorch_cpu.so", "stubs/libtorch.so")
    plan = Plan("_C_cuda.abi3.so", stubs, f"{folders} -lcudart_static -lpthread -ldl -lrt")
    for source in sorted([*SOURCES.rglob("*.cpp"), *SOURCES.rglob("*.cu")]):
        parts = source.relative_to(SOURCES).parts
        name = "/".join(parts)
        if "cuda" in parts:
            plan.objects.append((source, f"cuda/{name}.o", "nvcc", ""))
        elif "cpu" not in parts and "registration" not in parts and source.stem not in CPU_ONLY:
            plan.objects.append((source, f"cuda/{name}.o", "cxx", "-DUSE_CUDA"))
    return plan


def _escape(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
