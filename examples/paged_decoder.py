"""Decodes a batch of prompts with the K/V cache in kvops pages and checks every token.

A small Llama-shaped byte-level decoder learns a text for a minute. Prompts cut from the part
of the text that it has not seen are then continued twice: with a dense cache and PyTorch's
attention, and with a paged cache, where `reshape_and_cache` writes, `paged_attention_v2` reads,
and half-way `swap_blocks_batch` moves half of all pages to a second pool and back to other
places. Exits with 1 if any token differs.

    python examples/paged_decoder.py
    python examples/paged_decoder.py --device cuda --text my_novel.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from decoder.dense_cache import DenseCache
from decoder.generation import Comparison, Generation, compare, generate
from decoder.model import Decoder, DecoderConfig
from decoder.paged_cache import PagedCache, SwapReport
from decoder.report import Report, Update
from decoder.text import Corpus, cut_prompts, printable, read_text, split_text
from decoder.training import held_out_loss, train


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line and refuses what cannot work."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--text", type=Path, help="a text file instead of Python's own reference")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-seconds", type=float, default=60.0)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--shortest-prompt", type=int, default=50, help="in tokens (bytes)")
    parser.add_argument("--longest-prompt", type=int, default=512, help="in tokens (bytes)")
    parser.add_argument("--new-tokens", type=int, default=128, help="for each prompt")
    parser.add_argument("--page-tokens", type=int, default=16, help="tokens in a page")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-size", type=int, default=32)
    options = parser.parse_args(arguments)
    if options.prompts < 1 or options.new_tokens < 2:
        parser.error("at least one prompt and two new tokens are needed")
    if not 1 <= options.shortest_prompt <= options.longest_prompt:
        parser.error("the shortest prompt has at least 1 token, the longest no fewer than it")
    return options


def train_decoder(
    options: argparse.Namespace, corpus: Corpus, generator: torch.Generator, report: Report
) -> Decoder:
    """A decoder trained on the text, with its loss before and after."""
    config = DecoderConfig(
        layers=options.layers,
        heads=options.heads,
        kv_heads=options.kv_heads,
        head_size=options.head_size,
        context_tokens=options.longest_prompt + options.new_tokens,
    )
    torch.manual_seed(options.seed)
    model = Decoder(config).to(options.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report.line(f"decoder with {parameters:,} parameters, text of {len(corpus.training):,} bytes")

    before = held_out_loss(model, corpus)
    with report.stage("training") as update:
        steps = train(model, corpus, options.train_seconds, generator, update)
    after = held_out_loss(model, corpus)
    report.line(f"loss on unseen text: {before:.2f} -> {after:.2f} nats/byte in {steps} steps")
    return model


def count_steps(
    update: Update, new_tokens: int, at_half: Callable[[], None] = lambda: None
) -> Callable[[int], None]:
    """Turns the steps of `generate` into progress, with something to do half-way."""

    def on_step(tokens: int) -> None:
        if tokens == new_tokens // 2:
            at_half()
        update(tokens / new_tokens, f"{tokens} of {new_tokens} tokens for each prompt")

    return on_step


def decode_dense(
    options: argparse.Namespace, model: Decoder, prompts: list[Tensor], report: Report
) -> Generation:
    """The reference run."""
    cache = DenseCache(model.config, len(prompts), options.device)
    with report.stage("decoding, dense cache") as update:
        on_step = count_steps(update, options.new_tokens)
        return generate(model, cache, prompts, options.new_tokens, on_step)


def decode_paged(
    options: argparse.Namespace, model: Decoder, prompts: list[Tensor], report: Report
) -> tuple[Generation, PagedCache, SwapReport]:
    """The run on pages, half of which are swapped out and in half-way."""
    lengths = [len(prompt) + options.new_tokens for prompt in prompts]
    max_pages = sum(ceil(length / options.page_tokens) for length in lengths)
    cache = PagedCache(
        model.config, max_pages, options.page_tokens, options.device, seed=options.seed
    )
    swaps: list[SwapReport] = []
    with report.stage("decoding, paged cache") as update:
        on_step = count_steps(
            update, options.new_tokens, lambda: swaps.append(cache.swap_out_and_in())
        )
        paged = generate(model, cache, prompts, options.new_tokens, on_step)
    return paged, cache, swaps[0]


def show_continuation(report: Report, prompt: Tensor, continuation: Tensor) -> None:
    """Prints one prompt with what the decoder made of it."""
    report.line(f"\nprompt (its end):\n{printable(prompt[-200:])}")
    report.line(f"\ncontinuation:\n{printable(continuation)}\n")


def result_rows(
    prompts: list[Tensor],
    paged: Generation,
    dense: Generation,
    cache: PagedCache,
    swap: SwapReport,
    comparison: Comparison,
) -> list[tuple[str, str]]:
    """The lines of the final table."""
    prompt_tokens = sum(len(prompt) for prompt in prompts)
    pool = cache.pool
    return [
        ("tokens in prompts", f"{prompt_tokens:,} in {len(prompts)} sequences"),
        ("tokens generated", f"{comparison.tokens:,}"),
        ("tokens/s, paged (with the swap)", f"{paged.tokens_per_second:,.0f}"),
        ("tokens/s, dense", f"{dense.tokens_per_second:,.0f}"),
        ("pages in use at the end", f"{pool.pages_in_use:,} of {pool.num_pages:,}"),
        ("pages swapped out and in", f"{swap.pages_moved:,} of {swap.pages_in_use:,}"),
        ("bytes moved by the swap", f"{swap.bytes_moved:,}"),
        ("tokens equal to dense", f"{comparison.equal_tokens:,} of {comparison.tokens:,}"),
        ("largest |logit difference|", f"{comparison.largest_logit_difference:.1e}"),
        ("equality", "equal" if comparison.agrees else "DIFFERENT"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example; the exit code is 0 if the paged cache gave what the dense one gave."""
    options = parse_arguments(arguments)
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)  # the current device: swaps have no tensor to ask
    report = Report()
    generator = torch.Generator().manual_seed(options.seed)
    window_tokens = options.longest_prompt + options.new_tokens
    corpus = split_text(read_text(options.text), window_tokens, options.device)
    model = train_decoder(options, corpus, generator, report)

    prompts = cut_prompts(
        corpus.held_out,
        options.prompts,
        options.shortest_prompt,
        options.longest_prompt,
        generator,
    )
    dense = decode_dense(options, model, prompts, report)
    paged, cache, swap = decode_paged(options, model, prompts, report)
    comparison = compare(paged, dense)
    show_continuation(report, prompts[0], paged.tokens[0])
    rows = result_rows(prompts, paged, dense, cache, swap, comparison)
    report.table("paged decoding with kvops", rows)
    return 0 if comparison.agrees else 1


if __name__ == "__main__":
    raise SystemExit(main())
