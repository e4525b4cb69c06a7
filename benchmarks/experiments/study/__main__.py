"""Run a study, or go on with it, and write its page and picture.

    python -m mggc_edge.benchmarks.experiments.study NAME --data $DATA [--trained $TRAINED] --runs DIR [--only ROW ...]
        [--keep] [--commit]
    python -m mggc_edge.benchmarks.experiments.study NAME --runs DIR --status
    python -m mggc_edge.benchmarks.experiments.study NAME --pages

NAME is a file in benchmarks/experiments/studies/, or a path. It can be killed at any time and given again: a run that
was begun goes on where its last state was saved, at most a minute before, and one that is in results/NAME.jsonl is not
done again. results/NAME.md and results/NAME.svg are made anew from that file after every run.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from mggc_edge.artifacts import atomic_write
from mggc_edge.benchmarks.experiments.study.numbers import Numbers
from mggc_edge.benchmarks.experiments.study.record import check_records, read_records
from mggc_edge.benchmarks.experiments.study.runner import Runner
from mggc_edge.benchmarks.experiments.study.table import DATA, TRAINED, Run, Study, find_study, read_study
from mggc_edge.errors import MggcEdgeError, MissingDependencyError

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"  # git adds nothing that lies behind a link


def write_pages(study: Study, results: Path) -> list[Path]:
    """Write the page and the picture of a study beside its results; return the files."""
    from mggc_edge.benchmarks.experiments.study.figure import draw
    from mggc_edge.benchmarks.experiments.study.page import page

    records = read_records(results)
    check_records(study, records, results)
    numbers = Numbers(study, records)
    picture: Path | None = results.with_name(f"{study.name}.svg")
    assert picture is not None
    try:
        if not draw(study, numbers, picture):
            picture = None
    except MissingDependencyError as error:
        print(f"no picture: {error}", file=sys.stderr)
        picture = picture if picture is not None and picture.is_file() else None
    markdown = results.with_name(f"{study.name}.md")
    atomic_write(markdown, page(study, numbers, None if picture is None else picture.name).encode())
    return [results, markdown, *([] if picture is None else [picture])]


def show_status(runner: Runner) -> None:
    """Print what is done and how long the rest will take."""
    status = runner.status()
    for run, state, took in status:
        print(f"{run.name:<40} {state}{'' if took is None else f', {took / 60:.1f} min'}")
    left = runner.seconds_left(runner.study.runs)
    done = sum(state == "done" for _, state, _ in status)
    rest = "not known before the first run is finished" if left is None else f"about {left / 60:.0f} min"
    print(f"{done} of {len(status)} runs are done; time left: {'none' if done == len(status) else rest}")


def commit(files: list[Path], message: str) -> None:
    """Commit these files, and nothing else."""
    names = [str(path) for path in files]
    folder = files[0].parent
    subprocess.run(["git", "-C", str(folder), "add", "--", *names], check=True)  # noqa: S607
    line = ["git", "-C", str(folder), "commit", "--quiet", "--message", message, "--", *names]
    subprocess.run(line, check=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mggc_edge.benchmarks.experiments.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study")
    parser.add_argument("--data", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--trained", type=Path, help="folder with originals that `mggc-edge train` made")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="folder for run folders")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for NAME.jsonl, NAME.md and NAME.svg")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="these rows, or runs as ROW-SEED")
    parser.add_argument("--status", action="store_true", help="what is done, and how long the rest will take")
    parser.add_argument("--pages", action="store_true", help="only write the page and the picture")
    parser.add_argument("--keep", action="store_true", help="keep the folders of finished runs")
    parser.add_argument("--commit", action="store_true", help="commit the results after every run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _main(options)
    except MggcEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _main(options: argparse.Namespace) -> int:
    study = read_study(find_study(options.study))
    results = options.results / f"{study.name}.jsonl"
    if options.pages:
        write_pages(study, results)
        return 0

    def measure(folder: Path) -> dict[str, object]:
        from mggc_edge.benchmarks.experiments.study.measure import measure

        return measure(folder, curves=study.curves, probability=study.probability)

    def after(run: Run) -> None:
        files = write_pages(study, results)
        if options.commit:
            commit(files, f"Study {study.name}: {run.row.name}, seed {run.seed}")

    runner = Runner(
        study,
        results,
        options.runs,
        {name: path for name, path in ((DATA, options.data), (TRAINED, options.trained)) if path is not None},
        measure,
        keep=options.keep,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
        after=after,
    )
    if options.status:
        show_status(runner)
        return 0
    if options.data is None:
        raise SystemExit("--data is needed")
    runner.go(options.only)
    write_pages(study, results)
    if runner.failed:
        print(f"failed: {', '.join(runner.failed)}", file=sys.stderr)
    return 1 if runner.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
