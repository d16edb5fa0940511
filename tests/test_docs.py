"""What README.md and docs/ say must be true: paths exist, examples run, tables are current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvops

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [path.name for path in DOCUMENTS]
TOP_LEVEL = {path.name for path in ROOT.iterdir()} | {"csrc", "kvops", "tests", "tools"}
# Made by a build, not by git.
BUILT = ("build/", "dist/", "kvops/_C")
CAPABILITIES = (
    *("registration/", "common/", "attention/", "cache/", "mla/", "gather/", "swap/"),
    "transfer/",
)


def named_paths(text: str) -> set[str]:
    """Paths in backticks, code blocks and links that start at the top of the checkout."""
    words = re.findall(r"[\w./*-]+/[\w./*-]*\w(?![\w<])", text)
    found = {word for word in words if word.split("/")[0] in TOP_LEVEL}
    found |= {f"csrc/libtorch_stable/{word}" for word in words if word.startswith(CAPABILITIES)}
    return {path for path in found if not path.startswith(BUILT) and "*" not in path}


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_paths_exist(document: Path) -> None:
    missing = [path for path in named_paths(document.read_text()) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


def test_paths_are_found_at_all() -> None:
    assert "tools/audit_abi.py" in named_paths((ROOT / "README.md").read_text())


def test_readme_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {}
    exec(example, scope)
    assert scope["out"].isfinite().all() and scope["out"].abs().sum() > 0


def test_readme_lists_every_operator() -> None:
    text = (ROOT / "README.md").read_text().split("## Operators")[1].split("##")[0]
    listed = set(re.findall(r"`(\w+)`", text))
    assert {op.name for op in kvops._native.OPERATORS} <= listed


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"`?make (\w+)`?", document.read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (document.name, target)


def test_tables_are_current() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "render.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
