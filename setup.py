"""Declares the two native libraries; everything else is in pyproject.toml."""

from setuptools import setup

from command import BuildNative, native_extensions

setup(
    ext_modules=native_extensions(),
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
