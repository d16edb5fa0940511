"""Tells torch's stable headers from the others, and reads what a compiler says it has included."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

UNSTABLE_FOLDERS = {"ATen", "c10", "caffe2", "pybind11"}

# Below torch/: the stable C++ wrappers, types without libtorch, and what the wrappers include: the
# C shims (c/ holds only their declarations and macros; its shim_cpu.h and shim_xpu.h include
# ATen/Config.h, which is refused by its folder) and the generated shims that stable/ops.h calls.
_STABLE_BELOW_TORCH = re.compile(
    r"csrc/stable/|headeronly/"
    r"|csrc/inductor/aoti_torch/c/"
    r"|csrc/inductor/aoti_torch/generated/c_shim_aten\.h$"
)

# The part below torch/ of an absolute path, or of a name as written in an #include. A folder that
# merely is called torch (an environment, a checkout) does not match.
_BELOW_TORCH = re.compile(r"(?:(?:.*/)?include/|.*/(?=torch/(?:csrc|headeronly)/)|)torch/(.+)")


class UnreadableSource(Exception):
    """Something that had to be checked could not be."""


@dataclass(frozen=True)
class Dependency:
    """One header of one object, and where the dependency file names it."""

    header: str
    path: Path
    line: int


def is_torch_header(path: str) -> bool:
    """Whether a header, by path or as included, comes with torch."""
    return is_unstable_header(path) or _BELOW_TORCH.match(path) is not None


def is_unstable_header(path: str) -> bool:
    """Whether a header comes with torch and is not part of the stable ABI."""
    path = posixpath.normpath(path)
    if not UNSTABLE_FOLDERS.isdisjoint(path.split("/")[:-1]):
        return True
    below_torch = _BELOW_TORCH.match(path)
    return below_torch is not None and not _STABLE_BELOW_TORCH.match(below_torch[1])


def read_dependencies(path: Path) -> list[Dependency]:
    """The prerequisites in one dependency file (make syntax, as written by g++ and nvcc).

    Raises:
        UnreadableSource: not a rule, or a rule without prerequisites.
    """
    dependencies = []
    before_colon = True
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        continued = line.endswith("\\")
        for token in re.findall(r"(?:\\.|\S)+", line.removesuffix("\\")):
            if not before_colon:
                dependencies.append(Dependency(_unescaped(token), path, number))
            elif token.endswith(":"):
                before_colon = False
        if not continued:
            if before_colon and line.strip():
                raise UnreadableSource(f"{path}:{number}: not a dependency rule")
            before_colon = True
    if not dependencies:
        raise UnreadableSource(f"{path}: lists no dependency")
    return dependencies


def read_build(build: Path) -> list[Dependency]:
    """The dependencies of every object below a build folder.

    Raises:
        UnreadableSource: a dependency file is missing or damaged, or does not list system headers.
    """
    if not build.is_dir():
        raise UnreadableSource(f"{build}: no such folder")
    files = sorted(build.rglob("*.d"))
    if not files:
        raise UnreadableSource(
            f"{build}: no dependency file (*.d); compile with -MD, and where ninja's `deps = gcc` "
            "deletes them, run ninja with -d keepdepfile"
        )
    for compiled in sorted(build.rglob("*.o")):
        beside = (compiled.with_name(compiled.name + ".d"), compiled.with_suffix(".d"))
        if not any(path.is_file() for path in beside):
            raise UnreadableSource(f"{compiled}: compiled without a dependency file")
    dependencies = [dependency for path in files for dependency in read_dependencies(path)]
    if not any(is_torch_header(dependency.header) for dependency in dependencies):
        raise UnreadableSource(
            f"{build}: no torch header in any dependency file (-MMD leaves them out)"
        )
    return dependencies


def read_text(path: Path) -> str:
    """A source file's text, in whatever encoding that has ASCII in it, without a byte order mark.

    Raises:
        UnreadableSource: no such file, not permitted, or no such encoding (UTF-16).
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UnreadableSource(f"{path}: {error.strerror}") from error
    if "\0" in text:
        raise UnreadableSource(f"{path}: not text that a compiler reads")
    return text


def _unescaped(token: str) -> str:
    return re.sub(r"\\([ #:\\])", r"\1", token).replace("$$", "$")
