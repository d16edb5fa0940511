#!/usr/bin/env python3
"""Says where compiled torch extensions load, and checks that they stay on the stable ABI.

    python tools/audit_abi.py dist/*.whl
    python tools/audit_abi.py build/ path/to/_C.abi3.so --floor 2.11 --json

Needs pyelftools and torch-abi-audit (which brings abi3info), not kvops and not torch. Installed
with kvops as `kvops-audit`; docs/gate_your_extension.md is the guide.
"""

from __future__ import annotations

import sys

from abi_audit.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
