"""Writes the files that a run was asked for, or says in one sentence why it could not."""

from __future__ import annotations

from pathlib import Path


class CannotWrite(Exception):
    """A file could not be written; without it the run must not look as if all were well."""


def write_text(path: Path, text: str, append: bool = False) -> None:
    """Write text, or put it at the end of what is there.

    Raises:
        CannotWrite: no such folder, not permitted, the disk is full.
    """
    try:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written ({error.strerror or error})") from error
