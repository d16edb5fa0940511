"""Declares the two native libraries; everything else is in pyproject.toml."""

from setuptools import setup

from command import BuildNative, native_extensions, wheel_options

setup(
    ext_modules=native_extensions(),
    cmdclass={"build_ext": BuildNative},
    options=wheel_options(),
)
