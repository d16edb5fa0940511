"""The workflows do what docs/releasing.md says: pinned, least permissions, one tested artifact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import torch_matrix

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text() for path in WORKFLOWS}
# The one to copy from the documentation has to be as good as ours.
GUIDE = (ROOT / "docs" / "gate_your_extension.md").read_text()
(TO_COPY,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
ALL = TEXTS | {"gate_your_extension.md": TO_COPY}


def jobs(text: str) -> dict[str, str]:
    """The jobs of a workflow by name, each as its own text."""
    parts = re.split(r"^  ([\w-]+):\n", text.split("\njobs:\n")[1], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", ALL)
def test_actions_are_pinned_by_commit(name):
    used = re.findall(r"uses: (\S+)(.*)", ALL[name])
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+(\.\d+)*", comment), f"{action}: which version is that?"
    # One version of each everywhere.
    assert len({action for action, _ in used}) == len({a.split("@")[0] for a, _ in used})


@pytest.mark.parametrize("name", ALL)
def test_permissions_are_given_job_by_job(name):
    assert re.search(r"^permissions: \{\}$", ALL[name], re.MULTILINE)
    for job, text in jobs(ALL[name]).items():
        (given,) = re.findall(r"^    permissions:\n((?: {6}.*\n)+)", text, re.MULTILINE)
        wanted = {line.split("#")[0].strip() for line in given.splitlines()}
        allowed = {"contents: read", "actions: read"}
        if (name, job) == ("release", "publish"):
            allowed = {"id-token: write"}
        if name == "gate_your_extension.md":
            allowed |= {"security-events: write"}
        assert wanted <= allowed, (job, wanted)


def test_checkouts_leave_no_token_behind():
    for name, text in ALL.items():
        assert text.count("actions/checkout@") == text.count("persist-credentials: false"), name


def test_the_tested_wheel_is_published_and_nothing_is_built_on_the_way():
    builders = re.compile(
        r"cibuildwheel dist|release\.py (sdist|wheel|repair|all)|pip wheel|-m build"
    )
    built_in = {
        (name, job)
        for name in TEXTS
        for job, text in jobs(TEXTS[name]).items()
        if builders.search(text)
    }
    assert built_in == {("wheel", "sdist"), ("wheel", "wheel")}
    publish = jobs(TEXTS["release"])["publish"]
    assert "needs: [files, gpu, check]" in publish
    assert "checkout" not in publish
    assert "sha256sum --check" in publish


@pytest.mark.parametrize(
    ("workflow", "job"), [("wheel", "test"), ("wheel", "ahead"), ("gpu", "gpu")]
)
def test_only_the_installed_wheel_can_be_imported(workflow, job):
    text = jobs(TEXTS[workflow])[job]
    removed = text.index("rm -rf csrc kvops")
    assert text.index("download-artifact") < text.index("sha256sum --check") < removed
    assert removed < text.index("python tools/") if workflow == "wheel" else text.index("gpu_check")


def test_matrix_has_every_torch_and_python():
    text = jobs(TEXTS["wheel"])["test"]
    torches = re.findall(r'"(\d+\.\d+\.\d+)"', re.search(r"torch: \[(.*)\]", text)[1])
    assert torches == [torch for torch in torch_matrix.TORCHES if "+" not in torch]
    pythons = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", text)[1])
    assert pythons == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    excluded = set(re.findall(r'\{ torch: "([\d.]+)", python: "([\d.]+)" \}', text))
    assert excluded == torch_matrix.NO_WHEEL


def test_pull_requests_never_reach_the_gpu_runner():
    assert "pull_request:" not in TEXTS["gpu"] and "self-hosted" in TEXTS["gpu"]
    assert not [name for name, text in TEXTS.items() if name != "gpu" and "self-hosted" in text]


def test_scripts_that_are_called_exist():
    makefile = (ROOT / "Makefile").read_text()
    for text in TEXTS.values():
        for path in re.findall(r"\b((?:tools|benchmarks)/[\w/]+\.py)", text):
            assert (ROOT / path).exists(), path
        for target in re.findall(r"make (\w+)", text):
            assert f"\n{target}:" in makefile, target
