"""Tells the C++ symbols of libtorch that carry no promise from those that do.

A symbol is unstable when its name mentions ``at::``, ``c10::``, ``caffe2::`` or ``torch::`` outside
``torch::stable`` and ``torch::headeronly``: as its own scope, as a parameter, or as a template
argument. All three change when libtorch changes.
"""

from __future__ import annotations

import re

from torch_abi_audit.demangle import demangle_symbol

# The first time a mangled name mentions a namespace it spells it out with its length, so a name
# without any of these cannot mention one. "12atomic" matches too: the demangled name decides.
_MANGLED_NAMESPACE = re.compile(r"2at|3c10|6caffe2|5torch")

# Not after "::" or a letter: `mine::at::f` and `cat::f` are somebody else's.
_UNSTABLE_SCOPE = re.compile(r"(?<![\w:])(?:at|c10|caffe2|torch(?!::(?:stable|headeronly)::))::")


def unstable_name(symbol: str) -> str | None:
    """The demangled name of an unstable libtorch symbol, or None for any other symbol.

    A mangled name that mentions one of the namespaces and cannot be demangled counts as unstable
    and is returned as it is.
    """
    if not symbol.startswith("_Z") or not _MANGLED_NAMESPACE.search(symbol):
        return None
    demangled = demangle_symbol(symbol)
    if demangled == symbol or _UNSTABLE_SCOPE.search(demangled):
        return demangled
    return None
