"""What a library is allowed to depend on: by default kvops' own promise.

One file serves every torch from the floor on, whether built for CPU, CUDA 12 or CUDA 13, with or
without a driver. So the dependencies are an allow-list: a library that none of those torches
brings would be a reason not to load.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from abi3info.models import PyVersion

from .facts import BUILDS, SYSTEM_LIBRARIES, provided_by
from .shims import Version

_LIBTORCH = ("libtorch_cpu.so",)


@dataclass(frozen=True)
class LibraryRule:
    """How the libraries whose file name matches `pattern` differ from all others."""

    pattern: str
    also_allowed: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


# The first match decides. torch is loaded RTLD_LOCAL, so its symbols are found only through a
# library's own dependencies: libtorch.so brings libtorch_cuda.so on the torches that have one.
_RULES = (
    LibraryRule("_C_cuda.*", also_allowed=("libtorch.so",), required=("libtorch.so",)),
    LibraryRule("_C.*", required=_LIBTORCH),
)
_NO_RULE = LibraryRule("*")

_WHY_REFUSED = {
    "libcudart*.so*": "ties the file to one CUDA major version and to torches built for CUDA",
    "libcuda.so*": "cannot be loaded on a machine without a driver",
    "libtorch_cuda.so*": "cannot be loaded by a torch built for CPU",
    "libc10*.so*": "has no stable C++ symbol",
    "libtorch_python.so*": "has no stable C++ symbol",
    "libpython*": "ties the file to one Python",
}


@dataclass(frozen=True)
class Policy:
    """The promise that libraries are held against."""

    #: Oldest torch that must load the library.
    torch_floor: Version = (2, 10, 0)
    #: Oldest Python, for every library; None: the wheel's tag, or 3.10 where there is none.
    python: PyVersion | None = None
    #: File name patterns allowed in DT_NEEDED besides the default ones.
    extra_needed: tuple[str, ...] = ()
    #: The builds of torch that are promised; less than all: what they bring is allowed as well.
    builds: tuple[str, ...] = BUILDS
    #: Whether a machine with NVIDIA's driver is all that is promised.
    driver: bool = False
    #: The platform tag that the C and C++ runtime must fit; None: the one in the wheel's name.
    platform: str | None = None

    def allows_needed(self, library: str, needed: str) -> bool:
        """Whether the file named `library` may depend on `needed`."""
        rule = _rule(library)
        allowed = (*_LIBTORCH, *SYSTEM_LIBRARIES, *rule.also_allowed, *self.extra_needed)
        if any(fnmatchcase(needed, pattern) for pattern in allowed):
            return True
        narrowed = set(self.builds) < set(BUILDS) or self.driver
        return narrowed and needed in provided_by(self.builds, self.driver)

    def required_needed(self, library: str) -> tuple[str, ...]:
        """What the file named `library` must depend on to find its symbols."""
        return _rule(library).required


def why_refused(needed: str) -> str:
    """What a dependency costs, for those that are met often."""
    reasons = (why for pattern, why in _WHY_REFUSED.items() if fnmatchcase(needed, pattern))
    return next(reasons, "not on the allow-list")


def _rule(library: str) -> LibraryRule:
    return next((rule for rule in _RULES if fnmatchcase(library, rule.pattern)), _NO_RULE)
