"""Do the runs of a study one after the other, and go on where it stopped."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import writing
from mggc_edge.benchmarks.experiments.study.record import Record, append_record, check_records, read_records
from mggc_edge.benchmarks.experiments.study.table import Run, Study, with_folders, without_folders
from mggc_edge.errors import ArtifactError, InputError

COMPRESS = (sys.executable, "-m", "mggc_edge.cli", "compress")
INTERRUPTED = (130, -2, -15)  # exit codes of a run that somebody stopped
Measure = Callable[[Path], dict[str, Any]]


@dataclass
class Runner:
    """Runs a study.

    Every run is `mggc-edge compress` in a process of its own, in the folder runs/<study>/<row>-<seed>. When it is
    finished, one line goes into `results`, and then its folder goes away.

    Attributes:
        study: what to run.
        results: the file of lines, see `record`.
        runs: a folder for the run folders.
        folders: what DATA and TRAINED stand for, as far as they are there.
        measure: from a finished run folder to what is kept of it.
        keep: leave the folders of finished runs.
        tell: is told what happens.
        after: is called after every line that was added.
        command: what takes the flags.
    """

    study: Study
    results: Path
    runs: Path
    folders: Mapping[str, Path]
    measure: Measure
    keep: bool = False
    tell: Callable[[str], None] = lambda _: None
    after: Callable[[Run], None] = lambda _: None
    command: Sequence[str] = COMPRESS
    failed: list[str] = field(default_factory=list)
    _lock: int = -1
    _took: float = 0.0

    @property
    def folder(self) -> Path:
        """Where the run folders of this study are."""
        return self.runs / self.study.name

    def go(self, only: Sequence[str] = ()) -> None:
        """Do what is left of the study, or of the rows or runs named in `only`; runs that fail are left out.

        Names of those are in `failed` afterwards.

        Raises:
            InputError: the study was changed, or `only` names nothing of it.
            ArtifactError: another runner works on the study, or the results are damaged.
            KeyboardInterrupt: a run was interrupted.
        """
        chosen = self.chosen(only)
        with self._alone():
            check_records(self.study, read_records(self.results), self.results)
            for number, run in enumerate(chosen, 1):
                if self._recorded(run):
                    self._clear(run)
                    continue
                self.tell(f"[{number}/{len(chosen)}] {run.name}{_left(self.seconds_left(chosen))}")
                if self._do(run):
                    self._record(run)
                    self._clear(run)
                    self.after(run)
                else:
                    self.failed.append(run.name)

    def chosen(self, only: Sequence[str]) -> list[Run]:
        """Return the runs that `only` names, by row or as ROW-SEED; all of them where it is empty."""
        known = {name for run in self.study.runs for name in (run.name, run.row.name)}
        if unknown := [name for name in only if name not in known]:
            raise InputError(f"the study {self.study.name} has no row or run '{unknown[0]}'", "--status lists them")
        return [run for run in self.study.runs if not only or run.name in only or run.row.name in only]

    def status(self) -> list[tuple[Run, str, float | None]]:
        """Return (run, "done", "started" or "open", its seconds where it is done) of every run."""
        records = {(record["row"], record["seed"]): record for record in read_records(self.results)}
        found: list[tuple[Run, str, float | None]] = []
        for run in self.study.runs:
            record = records.get((run.row.name, run.seed))
            if record is not None:
                found.append((run, "done", seconds(record)))
            else:
                found.append((run, "started" if (self.folder / run.name / "job.json").is_file() else "open", None))
        return found

    def seconds_left(self, runs: Sequence[Run]) -> float | None:
        """Return how long the open ones of these runs will take; None where nothing is known.

        A run takes as long as the finished ones of its row, or else of the study. What a started one has done is not
        taken off.
        """
        status = self.status()
        done = [(run.row.name, took) for run, _, took in status if took is not None]
        if not done:
            return None
        total = 0.0
        for run, state, _ in status:
            if state != "done" and run in runs:
                own = [took for name, took in done if name == run.row.name] or [took for _, took in done]
                total += sum(own) / len(own)
        return total

    def _recorded(self, run: Run) -> bool:
        return any((r["row"], r["seed"]) == (run.row.name, run.seed) for r in read_records(self.results))

    def _do(self, run: Run) -> bool:
        """Run `compress`, or go on with it; return whether it came to its end."""
        place = self.folder / run.name
        if place.exists() and not (place / "job.json").is_file():
            self._remove_empty(place)
        how = ["--resume", str(place)] if place.exists() else ["--out", str(place)]
        line = [*self.command, *with_folders(self.study.flags(run), self.folders), *how]
        start = time.monotonic()
        code = subprocess.run(line, check=False, stdout=subprocess.DEVNULL, pass_fds=(self._lock,)).returncode
        self._took = time.monotonic() - start
        if code in INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            self.tell(f"{run.name} ended with exit code {code}; it is left out, and tried again the next time")
        return code == 0

    def _remove_empty(self, place: Path) -> None:
        """Remove what a job leaves that was killed before it was one."""
        if any(path.is_file() for path in place.rglob("*")):
            raise ArtifactError(f"'{place}' holds something else than a run", hint="move it away")
        shutil.rmtree(place)

    def _record(self, run: Run) -> None:
        found = self.measure(self.folder / run.name)
        record: Record = {
            "study": self.study.name,
            "row": run.row.name,
            "seed": run.seed,
            "flags": list(self.study.flags(run)),
            "process_s": round(self._took, 1),  # of the one that came to the end
            **without_folders(found, self.folders),
        }
        append_record(self.results, record)

    def _clear(self, run: Run) -> None:
        if not self.keep:
            shutil.rmtree(self.folder / run.name, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the study's lock. The runs inherit it: one that outlives its runner keeps a second runner away."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("ab")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArtifactError(
                    f"another runner, or a run that it started, works on the study {self.study.name}",
                    hint="wait for it, or stop it",
                ) from error
            self._lock = file.fileno()
            yield


def seconds(record: Record) -> float:
    """Return how long a finished run took, in seconds: its stages, or the process that came to the end if longer."""
    return max(float(sum(record["timings_s"].values())), float(record["process_s"]))


def _left(left: float | None) -> str:
    return "" if left is None else f", about {max(1, round(left / 60))} min left"
