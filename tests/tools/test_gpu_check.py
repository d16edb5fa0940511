"""tools/gpu_check.py without a GPU: what it runs, how it counts, what it keeps."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gpu_check
from gpu_check import PARTS, ROOT, PytestPart, SanitizerPart

PASSING, FAILING = "def test_it():\n    pass\n", "def test_it():\n    assert False\n"


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= Invalid read\n========= ERROR SUMMARY: 12 errors\n", 12),
        ("========= ERROR SUMMARY: 1 error\n", 1),
        ("= ERROR SUMMARY: 25 errors\n= ERROR SUMMARY: 5 errors were not printed. Use\n", 25),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", 0),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n", 3),
        ("========= Target application terminated before first instrumented API call\n", None),
    ],
)
def test_summaries_of_the_sanitizer(output: str, errors: int | None) -> None:
    assert gpu_check.sanitizer_summary(f"before\n{output}after\n")[0] == errors


@pytest.mark.parametrize(
    "part", [part for part in PARTS.values() if isinstance(part, SanitizerPart)]
)
def test_scripts_exist(part: SanitizerPart) -> None:
    command = gpu_check.sanitizer_command(part)
    assert (ROOT / part.script).is_file() and str(ROOT / part.script) in command
    assert ("kns=kvops" in command) == (part.tool != "initcheck")


def test_every_test_file_is_in_one_part() -> None:
    files = [
        file for part in PARTS.values() if isinstance(part, PytestPart) for file in part.files(None)
    ]
    assert len(files) == len(set(files))
    elsewhere = {ROOT / "tests/cuda/test_hostile_memcheck.py"}  # the sanitizer's parts are that
    assert set(files) | elsewhere == set((ROOT / "tests").rglob("test_*.py"))


def test_shards_cover_a_part_once() -> None:
    suite = PARTS["suite"]
    assert isinstance(suite, PytestPart)
    shards = [suite.files(f"{number}/3") for number in (1, 2, 3)]
    assert sorted(itertools.chain(*shards)) == sorted(suite.files(None))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a test that fails, one that passes, and a wheel of a stand-in kvops."""
    root = tmp_path / "checkout"
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    # A package that must not be found: the wheel's is.
    (root / "kvops").mkdir()
    (root / "kvops" / "__init__.py").write_text("raise ImportError('the checkout was imported')\n")
    (root / "tests" / "test_passing.py").write_text("import kvops\n" + PASSING)
    (root / "tests" / "test_failing.py").write_text(FAILING)
    monkeypatch.setattr(gpu_check, "ROOT", root)
    parts = {
        "good": PytestPart(("tests/test_passing.py",), workers="0"),
        "bad": PytestPart(("tests",), workers="0"),
        "script": SanitizerPart("memcheck", "tests/script.py"),
    }
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    return root


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "kvops-0.1.0-py3-none-any.whl"
    info = "kvops-0.1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("kvops/__init__.py", "def info():\n    return {}\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: kvops\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: a\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


def check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run gpu_check with a probe that needs no GPU."""
    probe = (
        'import json, kvops; print(json.dumps({"gpu": "none", "gpus": 0, "torch": "2",'
        ' "cuda": None, "info": kvops.info(), "file": kvops.__file__}))'
    )
    monkeypatch.setattr(gpu_check, "PROBE", probe)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *map(str, arguments)])
    return gpu_check.main()


def test_parts_are_merged(
    checkout: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    options = (wheel, "--json", out, "--commit", "abc")
    assert check(monkeypatch, *options, "--part", "good") == 0
    assert check(monkeypatch, *options, "--part", "bad") == 1
    report = json.loads(out.read_text())
    assert report["commit"] == "abc" and len(report["wheel_sha256"]) == 64
    good, bad = report["parts"]["good"], report["parts"]["bad"]
    assert (good["ok"], good["passed"], good["failed"]) == (True, 1, 0)
    assert (bad["ok"], bad["passed"], bad["failed"]) == (False, 1, 1)
    assert bad["failures"] == ["tests.test_failing::test_it"]

    assert check(monkeypatch, wheel, "--json", out, "--commit", "def", "--part", "good") == 0
    assert list(json.loads(out.read_text())["parts"]) == ["good"]


def test_a_script_that_a_sanitizer_runs(
    checkout: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "tests" / "script.py").write_text("print('ERROR SUMMARY: 0 errors')\n")
    monkeypatch.setattr(
        gpu_check,
        "sanitizer_command",
        lambda part: [sys.executable, str(gpu_check.ROOT / part.script)],
    )
    assert check(monkeypatch, wheel, "--part", "script") == 0
    (checkout / "tests" / "script.py").write_text("raise SystemExit(3)\n")
    assert check(monkeypatch, wheel, "--part", "script") == 1


def test_a_part_that_takes_too_long_has_failed(
    checkout: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "tests" / "test_passing.py").write_text(
        "import time\ndef test_it():\n    time.sleep(60)\n"
    )
    assert check(monkeypatch, wheel, "--part", "good", "--timeout", "3") == 1


# On a busy machine pytest and its worker take seconds to start. The limit ends what hangs in the
# second case.
@pytest.mark.parametrize(("plugin", "limit"), [("timeout", 300), ("no:timeout", 20)])
def test_a_test_that_hangs_is_named(
    plugin: str,
    limit: int,
    checkout: Path,
    wheel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With pytest-timeout it fails and the others go on; without, pytest shows where it is."""
    if plugin == "timeout":
        pytest.importorskip("pytest_timeout")
    out = tmp_path / "out.json"
    (checkout / "tests" / "test_passing.py").write_text(
        f"import time\n{PASSING}\ndef test_that_hangs():\n    time.sleep(60)\n"
    )
    part = PytestPart(("tests/test_passing.py",), workers="1", test_seconds=1)
    monkeypatch.setitem(gpu_check.PARTS, "hangs", part)
    options = ("--part", "hangs", "--json", out, "--timeout", limit, f"--pytest=-p{plugin}")
    assert check(monkeypatch, wheel, *options) == 1
    result = json.loads(out.read_text())["parts"]["hangs"]
    if plugin == "timeout":
        assert result["passed"] == 1
        assert result["failures"] == ["tests.test_passing::test_that_hangs"]
    else:
        assert (result["ok"], result["passed"]) == (False, 1)
        place = r"test_passing\.py.*\bline 6\b.* in test_that_hangs"
        assert re.search(place, capfd.readouterr().out)


def test_without_a_gpu_nothing_is_claimed(wheel: Path) -> None:
    """The stand-in wheel has no operators, and this machine may have no GPU: both must be said."""
    command = [sys.executable, str(ROOT / "tools" / "gpu_check.py"), str(wheel), "--part", "nope"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no such part: nope" in done.stderr
