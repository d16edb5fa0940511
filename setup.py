"""Declares the two native libraries; everything else is in pyproject.toml."""

from command import BuildNative, native_extensions
from setuptools import setup

setup(
    ext_modules=native_extensions(),
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
