"""Where words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mggc_edge.errors import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
FREE_WIDTH = 4200  # as long as a path may be


class Output:
    """The two streams of one command.

    Args:
        quiet: leave out progress and remarks.
        color: False switches colours off; NO_COLOR in the environment does as well.
    """

    def __init__(self, *, quiet: bool = False, color: bool = True) -> None:
        self.quiet = quiet
        self._color = color

    def console(self, *, stderr: bool = False) -> Console:
        """Return a Rich console on stdout or stderr."""
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        # In a pipe there is no width to keep to, and a folded path cannot be searched for.
        free = not stream.isatty() and "COLUMNS" not in os.environ
        no_color = True if not self._color else None
        return Console(stderr=stderr, no_color=no_color, highlight=False, width=FREE_WIDTH if free else None)

    def result(self, renderable: RenderableType) -> None:
        """Print a result for people; lines do not end in spaces unless colours need them."""
        console = self.console()
        with console.capture() as capture:
            console.print(renderable)
        lines = capture.get().splitlines()
        sys.stdout.write("".join(f"{line.rstrip(' ')}\n" for line in lines))

    def text(self, line: str) -> None:
        """Print a line of a result without markup or wrapping."""
        sys.stdout.write(f"{printable(line)}\n")

    def raw(self, text: str) -> None:
        """Print a document of a format that has its own escaping, as it is."""
        sys.stdout.write(text)

    @contextlib.contextmanager
    def document(self, document: Mapping[str, Any], *, as_json: bool, file: Path | None) -> Iterator[bool]:
        """Print the JSON document of a result where it was asked for, and yield whether stdout has been taken by it.

        The block prints what people shall see. The file is written after it: where that fails, the result is shown.
        """
        text = json_text(document)  # refused before anything is printed
        try:
            if as_json:
                sys.stdout.write(json_text(document, sys.stdout.encoding or "utf-8"))
            yield as_json
        finally:
            if file is not None:
                _write_document(file, text.encode())

    def remark(self, text: str) -> None:
        """Print a line about what goes on."""
        if not self.quiet:
            sys.stderr.write(f"{wrapped(printable(text), terminal_width())}\n")
            sys.stderr.flush()

    def error(self, message: str, hint: str | None = None) -> None:
        """Print an error: what is wrong, and the way out."""
        from rich.text import Text

        console, width = self.console(stderr=True), terminal_width()
        for label, style, text in (("error: ", "bold red", message), ("hint: ", "bold", hint)):
            if text:
                rest = wrapped(label + text, width).removeprefix(label)
                console.print(Text.assemble((label, style), rest), soft_wrap=True)

    def track(self, items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
        """Yield `items` with a progress bar on a terminal, or a line every 10 seconds elsewhere."""
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            from rich.progress import track

            yield from track(items, description=what, total=total, console=self.console(stderr=True), transient=True)
        else:
            start = last = time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                now = time.monotonic()
                if now - last >= SECONDS_BETWEEN_LINES:
                    last = now
                    left = (now - start) / done * (total - done)
                    self.remark(f"{what}: {done} of {total}, about {left:.0f} s left")


def terminal_width() -> int | None:
    """Return how many columns stderr has; None where it is no terminal, and lines stay whole."""
    if not sys.stderr.isatty():
        return None
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80


def wrapped(text: str, width: int | None) -> str:
    """Return text with line breaks between words, so that lines have at most `width` columns where words allow it.

    A command at its end goes onto a line of its own, which is not broken: it can be copied.
    """
    if width is None or len(text) <= width:
        return text
    words, colon, command = text.partition(": mggc-edge ")
    lines = textwrap.wrap(words + colon[:1], max(width, 20), break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, f"{colon[2:]}{command}"] if colon else lines)


def check_document_file(path: Path) -> None:
    """Raise OutputError where `Output.document` could not write its file, before the work that leads to it."""
    from mggc_edge.artifacts import check_writable, writing
    from mggc_edge.errors import OutputError

    with writing(path):
        path = path.resolve()
        if path.is_dir():
            raise OutputError(f"'{path}' is a folder, not a file", hint="name a file in it")
        special = path.exists() and not path.is_file()
    if not special:  # a pipe would wait for its reader
        check_writable(path)


def _write_document(path: Path, data: bytes) -> None:
    from mggc_edge.artifacts import atomic_write, writing

    check_document_file(path)
    path = path.resolve()  # a link stays a link, and what it leads to is written
    if path.exists() and not path.is_file():  # a device or a pipe is written to, not put a file over
        with writing(path):
            path.write_bytes(data)
    else:
        atomic_write(path, data)


def json_text(document: Mapping[str, Any], encoding: str = "utf-8") -> str:
    """Return a document as JSON that can be written in `encoding`; NaN and Infinity are refused."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # half a surrogate pair in a name out of a file, or a terminal without UTF-8
        return json.dumps(document, indent=2, allow_nan=False) + "\n"
    return text


def shown(text: str) -> str:
    """Return text from a file or path so that Rich prints it as it is: no markup, no terminal escapes, one line."""
    from rich.markup import escape

    return escape(printable(text))


def si(value: float, digits: int = 4) -> str:
    """Return a count with so many significant digits and a decimal unit: 49.55 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.{max(0, digits - len(str(int(abs(scaled)))))}f} {unit}"
    return f"{value:.{digits}g}"


def file_size(size_bytes: int) -> str:
    """Return a file's size in decimal megabytes or kilobytes."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"
