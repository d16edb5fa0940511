"""Finds torch's headers: a folder given by hand, an installed torch, or the torch wheel.

Only headers are needed. The libraries are linked against empty stand-ins with the right
sonames (see `ninja_file`), so a build never depends on which torch happens to be installed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

MINIMUM = (2, 14, 1)
FETCHED_VERSION = "2.15.0"
WHY_MINIMUM = (
    "kvops must be built with the headers of torch >= 2.14.1: up to 2.13 the header that converts"
    " a `str` argument leaks about 100 bytes a call, and the leak is compiled into the extension"
    " whatever torch it runs on later (pytorch/pytorch#191340)"
)
HEADER_FOLDERS = (
    "torch/include/torch/csrc/stable/",
    "torch/include/torch/csrc/inductor/aoti_torch/",
    "torch/include/torch/headeronly/",
)


@dataclass(frozen=True)
class TorchHeaders:
    """An include folder, the torch version it belongs to, and where it was found."""

    include: Path
    version: str
    origin: str


class HeadersError(RuntimeError):
    """No usable headers; the message says why in one sentence."""


def find_torch_headers() -> TorchHeaders:
    """The headers of KVOPS_TORCH, else of an installed torch, else of the fetched torch wheel."""
    by_hand = os.environ.get("KVOPS_TORCH")
    if by_hand:
        headers = _read(Path(by_hand), "KVOPS_TORCH")
        if headers is None:
            raise HeadersError(f"KVOPS_TORCH={by_hand} is not a torch folder (no version.py in it)")
        if not _new_enough(headers.version):
            raise HeadersError(f"{WHY_MINIMUM}; KVOPS_TORCH={by_hand} is torch {headers.version}")
        return headers
    for folder in _installed_torch_folders():
        headers = _read(folder, "the installed torch")
        if headers is not None and _new_enough(headers.version):
            return headers
    return _fetch()


def _read(torch_folder: Path, origin: str) -> TorchHeaders | None:
    try:
        text = (torch_folder / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r"__version__\s*=\s*'([^']+)'", text)
    include = torch_folder / "include"
    if not found or not (include / "torch/csrc/stable/library.h").exists():
        return None
    return TorchHeaders(include, found.group(1), origin)


def _new_enough(version: str) -> bool:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
    return numbers >= MINIMUM


def _installed_torch_folders() -> list[Path]:
    """site-packages of the installing environment: build isolation hides them from `import`."""
    folders = [Path(sysconfig.get_paths()["platlib"]), Path(sysconfig.get_paths()["purelib"])]
    virtual_env = os.environ.get("VIRTUAL_ENV")
    if virtual_env:
        folders += sorted(Path(virtual_env).glob("lib/python3.*/site-packages"))
    folders += [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    return [folder / "torch" for folder in dict.fromkeys(folders)]


def _fetch() -> TorchHeaders:
    """Unpack the headers of the torch wheel into the user's cache; the wheel itself is not kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "kvops" / f"torch-{FETCHED_VERSION}-headers"
    headers = _read(target / "torch", f"the torch {FETCHED_VERSION} wheel")
    if headers is not None:
        return headers
    print(f"kvops: fetching the headers of torch {FETCHED_VERSION} (once)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _download_wheel(Path(folder))
        (wheel,) = Path(folder).glob("torch-*.whl")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unpacked beside the target and renamed, so that an interrupted build leaves no half of it.
        unpacked = Path(tempfile.mkdtemp(dir=target.parent))
        with zipfile.ZipFile(wheel) as archive:
            wanted = [n for n in archive.namelist() if n.startswith(HEADER_FOLDERS)]
            archive.extractall(unpacked, [*wanted, "torch/version.py"])
    try:
        unpacked.rename(target)
    except OSError:
        if _read(target / "torch", "") is None:  # anything but: another build was faster
            raise
    headers = _read(target / "torch", f"the torch {FETCHED_VERSION} wheel")
    if headers is None:
        raise HeadersError(f"the torch {FETCHED_VERSION} wheel holds no stable-ABI headers")
    return headers


def _download_wheel(folder: Path) -> None:
    # The headers are the same for every Python: name one, so that any Python can build.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.12"]
    command += ["--abi=cp312", f"--platform=manylinux_2_28_{platform.machine()}"]
    command += ["--disable-pip-version-check", f"--dest={folder}", f"torch=={FETCHED_VERSION}"]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise HeadersError(
            f"{WHY_MINIMUM}; no such torch is installed here and pip could not fetch torch"
            f" {FETCHED_VERSION}: set KVOPS_TORCH to the folder of an unpacked torch wheel"
        ) from error
