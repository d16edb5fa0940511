"""`python -m kvops info`: what is installed here; `--json` for machines."""

from __future__ import annotations

import argparse
import json

from .info import info


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kvops")
    parser.add_argument("command", choices=["info"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a list")
    arguments = parser.parse_args()
    facts = info()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return
    operators = facts.pop("operators")
    for name, value in facts.items():
        print(f"{name + ':':20} {', '.join(value) if isinstance(value, list) else value}")
    for device, names in operators.items():
        print(f"{'operators on ' + device + ':':20} {len(names)}: {', '.join(names)}")


if __name__ == "__main__":
    main()
