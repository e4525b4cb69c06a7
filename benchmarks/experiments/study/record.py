"""The results of a study: one JSON object a line, one line a finished run, appended and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import writing
from mggc_edge.benchmarks.experiments.study.table import Study
from mggc_edge.errors import ArtifactError, InputError

MAX_BYTES = 2**28
Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Return the lines of a results file, none where there is no file.

    A last line without its end was cut off while it was written: it is left out.

    Raises:
        ArtifactError: another line is no object with a row and a seed, or names a run for the second time.
    """
    if not path.is_file():
        return []
    if path.stat().st_size > MAX_BYTES:
        raise ArtifactError(f"'{path}' has more than {MAX_BYTES:,} bytes")
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    records: list[Record] = []
    seen = set()
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            key = (record["row"], record["seed"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(f"'{path}' is damaged: line {number} is no finished run") from error
        if key in seen:
            raise ArtifactError(f"'{path}' holds the run {key[0]}-{key[1]} twice", hint="remove one of the lines")
        seen.add(key)
        records.append(record)
    return records


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line, which is on the disk when this returns; what a killed process left of a line is cut off first.

    Only for whoever holds the study's lock.

    Raises:
        ArtifactError: the run is there already.
        OutputError: the file cannot be written.
    """
    if any((old["row"], old["seed"]) == (record["row"], record["seed"]) for old in read_records(path)):
        raise ArtifactError(f"'{path}' holds the run {record['row']}-{record['seed']} already")
    line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if (size := file.tell()) > 0:
                file.truncate(_whole(path, size))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _whole(path: Path, size: int) -> int:
    """Return how many bytes of the file are whole lines."""
    content = path.read_bytes()[:size]
    return content.rfind(b"\n") + 1


def check_records(study: Study, records: list[Record], path: Path) -> None:
    """Raise InputError where a line is of no run of the study, or was made with other flags than the study now has."""
    runs = {(run.row.name, run.seed): run for run in study.runs}
    for record in records:
        run = runs.get((record["row"], record["seed"]))
        if run is None or list(study.flags(run)) != record.get("flags"):
            raise InputError(
                f"'{path}' holds the run {record['row']}-{record['seed']}, which "
                + ("is not in the study" if run is None else "was made with other flags than the study has now"),
                hint="give the changed study another name, or move the old results away",
            )
