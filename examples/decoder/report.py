"""Progress and results on the terminal, or as plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LINE_INTERVAL_SECONDS = 5.0

# Told the share of a stage that is done, and a few words on where it stands.
Update = Callable[[float, str], None]


class Report:
    """Everything that the example prints."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def line(self, text: str) -> None:
        """Prints text as it is, without reading markup into it."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Update]:
        """A stage of the work: a bar on a terminal, else a line every few seconds."""
        if not self.console.is_terminal:
            yield self._line_update(title)
            return
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=1.0, detail="")
            yield lambda share, detail: progress.update(task, completed=share, detail=detail)

    def _line_update(self, title: str) -> Update:
        last_line = float("-inf")

        def update(share: float, detail: str) -> None:
            nonlocal last_line
            now = time.perf_counter()
            if share >= 1.0 or now - last_line >= LINE_INTERVAL_SECONDS:
                last_line = now
                self.line(f"{title}: {share:4.0%}, {detail}")

        return update

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Prints the result."""
        table = Table(title=title, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
