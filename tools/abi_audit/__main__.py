"""``kvops-audit``, ``python -m kvops_audit``, and what tools/audit_abi.py of a checkout runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_NEEDS = "pip install pyelftools torch-abi-audit (Python 3.11 or later)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, or say which Python module it lacks."""
    try:
        from . import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__package__ or "."):
            raise
        print(f"kvops-audit: the Python module {error.name} is missing: {_NEEDS}", file=sys.stderr)
        return 2
    return cli.main(argv)


if __name__ == "__main__":
    sys.exit(main())
