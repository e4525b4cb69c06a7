"""How long `--help`, of the program or of a command, takes against an empty Typer app with as many commands, in turn.

    python benchmarks/experiments/startup.py [--pairs 30] [--command bench]

Prints the ratio of whole-process CPU times, user and system, which a busy machine disturbs less than wall time: its
median over the pairs and a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

EMPTY_APP = '''
import typer
app = typer.Typer(name="empty", no_args_is_help=True, rich_markup_mode="rich")
@app.callback()
def program():
    """An empty program."""
for name in {names}:
    def command():
        """A command that does nothing."""
    app.command(name)(command)
app()
'''
OURS = "from mggc_edge.cli.main import main; main()"


def command_names() -> list[str]:
    """Return the names of the program's commands."""
    from mggc_edge.cli.commands import SUMMARIES

    return list(SUMMARIES)


def seconds(command: Sequence[str]) -> float:
    """Run a command to its end and return the CPU time it took."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def ratios(pairs: int, command: str | None = None) -> list[float]:
    """Return ours : empty for every pair, the two in turn, each first in half of them; of a command, or the program."""
    asked = ["--help"] if command is None else [command, "--help"]
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY_APP.format(names=command_names()))
        commands = ([sys.executable, "-c", OURS, *asked], [sys.executable, str(empty), *asked])
        for one in commands:  # warm-up: byte code, file cache
            seconds(one)
        found = []
        for pair in range(pairs):
            order = (0, 1) if pair % 2 == 0 else (1, 0)
            times = {index: seconds(commands[index]) for index in order}
            found.append(times[0] / times[1])
    return found


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the median."""
    generator = random.Random(seed)  # noqa: S311  nothing secret
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-51]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--command", help="whose --help is asked for, of both")
    words = parser.parse_args()
    values = ratios(words.pairs, words.command)
    low, high = interval(values)
    sys.stdout.write(
        json.dumps(
            {
                "pairs": len(values),
                "ratio": round(statistics.median(values), 3),
                "ci95": [round(low, 3), round(high, 3)],
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
