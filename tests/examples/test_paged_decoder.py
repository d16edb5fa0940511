"""The example end to end with a tiny model, and that it sees when a page is lost or mixed up."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kvops
import paged_decoder
from decoder.dense_cache import DenseCache
from decoder.generation import Generation, compare, generate
from decoder.model import Decoder, DecoderConfig
from decoder.paged_cache import PagedCache

TINY = (
    *("--train-seconds", "0.2", "--layers", "2", "--heads", "4", "--kv-heads", "2"),
    *("--head-size", "16", "--prompts", "3", "--shortest-prompt", "5"),
    *("--longest-prompt", "40", "--new-tokens", "24"),
)
CPU = torch.device("cpu")


def tiny_model(context_tokens: int = 80) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        layers=2, heads=4, kv_heads=2, head_size=16, context_tokens=context_tokens
    )
    return Decoder(config)


def break_swap_in(monkeypatch: pytest.MonkeyPatch, broken_targets) -> None:
    """Lets `broken_targets` spoil the targets of the second call, which brings the pages back."""
    swap, calls = kvops.swap_blocks_batch, []

    def broken_swap(src_ptrs, dst_ptrs, sizes, is_src_access_order_any=False):
        calls.append(len(sizes))
        if len(calls) == 2:
            dst_ptrs = broken_targets(src_ptrs, dst_ptrs.clone())
        swap(src_ptrs, dst_ptrs, sizes, is_src_access_order_any)

    monkeypatch.setattr(kvops, "swap_blocks_batch", broken_swap)


def last_piece_stays_away(sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The last piece is copied onto itself: its new place keeps the NaN it had."""
    targets[-1] = sources[-1]
    return targets


def layers_exchanged(_: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One page's V of the two layers change places: as many tokens, all finite, but wrong."""
    pages = len(targets) // 4  # [K of layer 0, V of layer 0, K of layer 1, V of layer 1]
    targets[[pages, 3 * pages]] = targets[[3 * pages, pages]]
    return targets


def test_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, paged_decoder.__file__, *TINY], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "training: 100%",
        "loss on unseen text: ",
        "decoding, dense cache: 100%, 24 of 24 tokens",
        "decoding, paged cache: 100%, 24 of 24 tokens",
        "72 of 72",  # tokens equal
        "continuation:",
    ):
        assert words in done.stdout
    assert "DIFFERENT" not in done.stdout


@pytest.mark.parametrize(
    ("broken_targets", "difference"),
    [(last_piece_stays_away, r"nan"), (layers_exchanged, r"\d\.\de[+-]\d\d")],
)
def test_broken_swap_is_reported(broken_targets, difference: str, monkeypatch, capsys) -> None:
    break_swap_in(monkeypatch, broken_targets)
    assert paged_decoder.main(TINY) == 1
    printed = capsys.readouterr().out
    assert "DIFFERENT" in printed
    assert re.search(rf"logit difference\|\s+│\s+{difference}", printed)


def test_text_file(tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.txt"
    # Training takes as many steps as it has time for, and where prompts are cut depends on that:
    # any 5 bytes of this show one of the three.
    text.write_text("Größe " * 400)
    assert paged_decoder.main([*TINY, "--text", str(text)]) == 0
    shown = capsys.readouterr().out
    assert any(part in shown for part in ("Gr", "ö", "ß"))


def test_short_text_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("too short")
    with pytest.raises(SystemExit, match="the text has 9 bytes, 1300 are needed"):
        paged_decoder.main([*TINY, "--text", str(text)])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--prompts", "0"),
        ("--new-tokens", "1"),
        ("--shortest-prompt", "41"),
        ("--shortest-prompt", "0"),
    ],
    ids=" ".join,
)
def test_impossible_sizes_are_refused(wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        paged_decoder.main([*TINY, *wrong])
    assert refusal.value.code == 2


def test_sequences_longer_than_a_partition() -> None:
    model = tiny_model(context_tokens=700)
    prompts = [torch.randint(256, (length,)) for length in (505, 17, 600)]
    paged = PagedCache(model.config, max_pages=100, page_tokens=16, device=CPU)
    dense = DenseCache(model.config, len(prompts), CPU)
    runs = [generate(model, cache, prompts, 20, lambda _: None) for cache in (paged, dense)]
    comparison = compare(*runs)
    assert comparison.agrees
    assert comparison.tokens == comparison.equal_tokens == 60


def test_swap_moves_half_of_the_pages_elsewhere() -> None:
    model = tiny_model()
    cache = PagedCache(model.config, max_pages=10, page_tokens=16, device=CPU)
    prompts = [torch.randint(256, (length,)) for length in (64, 33)]
    generate(model, cache, prompts, 2, lambda _: None)
    before = [list(table) for table in cache.tables]
    contents = [cache.pool.storage[:, :, table].clone() for table in before]

    swap = cache.swap_out_and_in()

    used = {page for table in before for page in table}
    moved = [
        (old, new)
        for old_table, new_table in zip(before, cache.tables, strict=True)
        for old, new in zip(old_table, new_table, strict=True)
        if old != new
    ]
    assert (swap.pages_in_use, swap.pages_moved, len(moved)) == (8, 4, 4)
    piece_bytes = 2 * 16 * 16 * 4  # kv heads, head size, tokens, fp32
    assert swap.bytes_moved == 2 * 4 * (2 * 2 * piece_bytes)  # ways, pages, layers, K and V
    assert not used & {new for _, new in moved}
    for old, _ in moved:
        assert cache.pool.storage[:, :, old].isnan().all()
    for table, content in zip(cache.tables, contents, strict=True):
        torch.testing.assert_close(
            cache.pool.storage[:, :, table], content, rtol=0, atol=0, equal_nan=True
        )


def test_pool_hands_out_each_page_once() -> None:
    config = tiny_model().config
    pool = PagedCache(config, max_pages=8, page_tokens=16, device=CPU).pool
    pages = pool.allocate(12)
    assert sorted(pages) == list(range(12)) and pages != sorted(pages)
    with pytest.raises(MemoryError, match="1 pages wanted, 0 of 12 free"):
        pool.allocate(1)
    pool.free(pages[:3])
    assert pool.allocate(3) == pages[:3]
    assert pool.pages_in_use == 12


def generation(tokens: list[list[int]], logits: torch.Tensor) -> Generation:
    return Generation(torch.tensor(tokens), logits, decode_seconds=1.0, decoded_tokens=1)


def test_comparison_stops_where_the_texts_part() -> None:
    reference = generation([[1, 2, 3], [4, 5, 6]], torch.zeros(2, 3, 8))
    logits = torch.zeros(2, 3, 8)
    logits[0, 1] = 0.25  # the step of the first different token
    logits[0, 2] = 9.0  # a different text by then
    comparison = compare(generation([[1, 7, 3], [4, 5, 6]], logits), reference)
    assert (comparison.tokens, comparison.equal_tokens) == (6, 5)
    assert comparison.largest_logit_difference == 0.25
    assert not comparison.agrees


@pytest.mark.parametrize(("difference", "agrees"), [(1e-5, True), (0.01, False), (math.nan, False)])
def test_equal_tokens_need_equal_logits_too(difference: float, agrees: bool) -> None:
    reference = generation([[1, 2]], torch.zeros(1, 2, 8))
    logits = torch.zeros(1, 2, 8)
    logits[0, 1, 3] = difference
    assert compare(generation([[1, 2]], logits), reference).agrees is agrees
