"""Progress of long work: a bar with losses and time left on a terminal, a line every 10 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import SECONDS_BETWEEN_LINES, Output

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from mggc_edge.training.loop import Progress

# What is worth seeing while it runs, in this order; the log has everything.
SHOWN = {
    "macs_fraction": "kept",
    "regularizer": "R",
    "loss": "loss",
    "loss_g": "g",
    "loss_d": "d",
    "loss_d_a": "d_a",
    "loss_d_b": "d_b",
    "loss_l1": "l1",
    "loss_cycle": "cycle",
}
MOST_SHOWN, MOST_SHOWN_NARROW = 4, 2
WIDE = 100  # columns from which on there is room for more


class StageProgress:
    """Shows how far the stages of a job are. Lines of the job go through `tell`, so that they do not tear a bar."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""
        self._last = time.monotonic()

    def __enter__(self) -> StageProgress:
        if not self._out.quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.table import Column

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[left]}"),
                # It takes the rest of the line: what there is no room for is cut off here, and nowhere else.
                TextColumn(
                    "[dim]{task.fields[metrics]}[/]", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
                ),
                expand=True,
                console=self._out.console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away, and give the terminal back as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def tell(self, text: str) -> None:
        """Print a line about what goes on; the bar of a stage that has come to its end goes."""
        if self._bars is not None:
            from mggc_edge.cli.output import shown, terminal_width, wrapped

            if all(task.finished for task in self._bars.tasks):
                self._remove_bars()
            for line in wrapped(text, terminal_width()).splitlines():
                self._bars.console.print(shown(line), highlight=False, soft_wrap=True)
        else:
            self._out.remark(text)

    def watch(self, progress: Progress) -> None:
        """Show how far a stage is."""
        left = "" if progress.seconds_left is None else f"{time_left(progress.seconds_left)} left"
        wide = self._bars is None or self._bars.console.width >= WIDE
        metrics = summary(progress.metrics, MOST_SHOWN if wide else MOST_SHOWN_NARROW)
        self._show(progress.stage, progress.done, progress.steps, left, metrics)

    def track(self, items: Iterable[int], total: int) -> Iterator[int]:
        """Yield `items`, which are read, and show how many of them were."""
        for done, item in enumerate(items, start=1):
            yield item
            self._show("reading", done, total, "", "")

    def _show(self, stage: str, done: int, steps: int, left: str, metrics: str) -> None:
        if stage != self._stage or done <= 1:  # a stage begins: its first line comes when it has gone on for a while
            self._stage, self._last = stage, time.monotonic()
        if self._bars is not None:
            self._show_bar(stage, done, steps, left, metrics)
        elif not self._out.quiet and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._out.remark(", ".join(part for part in (f"{stage}: {done} of {steps}", left, metrics) if part))

    def _show_bar(self, stage: str, done: int, steps: int, left: str, metrics: str) -> None:
        assert self._bars is not None
        if stage not in self._tasks:
            self._remove_bars()
            self._tasks = {stage: self._bars.add_task(stage, total=steps, left="", metrics="")}
        self._bars.update(self._tasks[stage], completed=done, left=left, metrics=metrics)

    def _remove_bars(self) -> None:
        assert self._bars is not None
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks = {}


def summary(metrics: Mapping[str, Any], most: int = MOST_SHOWN) -> str:
    """Return the few numbers that a line has room for."""
    found = [f"{label} {metrics[name]:.3g}" for name, label in SHOWN.items() if name in metrics]
    return "  ".join(found[:most])


def time_left(seconds: float) -> str:
    """Return a duration as 0:42, 12:05 or 1:35:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
