"""The driver layer of the swaps, built with the headers of CUDA 12.8 and of the toolkit."""

from __future__ import annotations

from pathlib import Path

import pytest

from swap.driver_layer import Binaries, Layer, build, fetch_12_8_headers, toolkit_headers


@pytest.fixture(scope="session", params=["12.8", "toolkit"])
def binaries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    folder = tmp_path_factory.mktemp("driver_layer")
    headers = fetch_12_8_headers(folder) if request.param == "12.8" else toolkit_headers()
    if headers is None:
        pytest.skip(
            "pip cannot fetch the headers of CUDA 12.8"
            if request.param == "12.8"
            else "there is no CUDA toolkit"
        )
    return build(folder, headers)


@pytest.fixture
def layer(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layer:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")  # given back after the test
    return Layer(tmp_path, binaries)
