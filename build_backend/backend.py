"""PEP 517 hooks of kvops: setuptools', with this folder importable for setup.py.

`backend-path` puts this folder on `sys.path`, which is all that setup.py needs to find
`command` (the build command), `torch_headers` (where the headers come from), `toolchain`
(compilers and flags) and `ninja_file` (what is compiled and linked).
"""

from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]
