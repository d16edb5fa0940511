"""Draws GB/s over block size for each path of swaps, and for the automatic choice.

From the curve in benchmarks/results/cuda-swap.json. Called by render.py, which writes
docs/swaps.svg.
"""

from __future__ import annotations

from math import log2
from typing import Any

WIDTH, HEIGHT, LEFT, TOP = 420, 260, 44, 34
MOST_RATE = 60
COLOURS = {"kernel": "#1f77b4", "batch": "#d62728", "single": "#7f7f7f", "auto": "#000000"}
NAMES = {"H2D": "host to device", "D2H": "device to host"}


def draw(recorded: dict[str, Any]) -> str:
    """The drawing as SVG."""
    panels = [
        _panel(index, [row for row in recorded["curve"] if row["direction"] == direction])
        for index, direction in enumerate(NAMES)
    ]
    total = 2 * (WIDTH + LEFT) + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {HEIGHT + TOP + 50}"'
        ' font-family="sans-serif" font-size="11">\n'
        f'<rect width="{total}" height="{HEIGHT + TOP + 50}" fill="#ffffff"/>\n'
    )
    return head + "".join(panels) + "</svg>\n"


def _panel(index: int, rows: list[dict[str, Any]]) -> str:
    sizes = [row["bytes"] for row in rows]
    first, last = log2(sizes[0]), log2(sizes[-1])

    def x(size: int) -> float:
        return round((log2(size) - first) / (last - first) * WIDTH, 1)

    def y(rate: float) -> float:
        return round(HEIGHT * (1 - rate / MOST_RATE), 1)

    lines = [f'<g transform="translate({LEFT + index * (WIDTH + LEFT)} {TOP})">']
    lines.append(f'<text y="-14" font-size="13">{NAMES[rows[0]["direction"]]}, GB/s</text>')
    for rate in range(0, MOST_RATE + 1, 10):
        lines.append(f'<path d="M0 {y(rate)}H{WIDTH}" stroke="#dddddd"/>')
        lines.append(f'<text x="-6" y="{y(rate) + 4}" text-anchor="end">{rate}</text>')
    for size in sizes[::2]:
        lines.append(
            f'<text x="{x(size)}" y="{HEIGHT + 16}" text-anchor="middle">{_text(size)}</text>'
        )
    for place, (path, colour) in enumerate(COLOURS.items()):
        points = " ".join(f"{x(row['bytes'])},{y(row[path])}" for row in rows)
        style = (
            'stroke-width="2.5" stroke-dasharray="5 3"' if path == "auto" else 'stroke-width="2"'
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" {style}/>')
        lines.append(
            f'<text x="{place * 70}" y="{HEIGHT + 36}" fill="{colour}" font-weight="bold">'
            f"{path}</text>"
        )
    return "\n".join([*lines, "</g>\n"])


def _text(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"
