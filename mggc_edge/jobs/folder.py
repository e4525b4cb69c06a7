"""The folder of a job that takes long: what was asked for, what is finished, and where it goes on after a stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mggc_edge.artifacts import MANIFEST_FILE, check_output_folder, write_json, writing
from mggc_edge.errors import ArtifactError, InputError, SettingError
from mggc_edge.settings import Settings

JOB_FILE, WORK_FOLDER, LOG_FILE = "job.json", "work", "logs/metrics.jsonl"
JOB_SCHEMA = "mggc-edge/job/1"
MAX_JOB_BYTES = 2**20


@dataclass
class Job:
    """A job in its folder.

    Attributes:
        folder: the run folder.
        command: "compress" or "train".
        request: what was asked for, as JSON; a job goes on only with the same.
        settings, seed, threads: the same from start to end, whatever the flags of a resumed run are.
        facts: what the job found out and must find again: hashes of what it reads.
        timings_s: seconds that each finished stage took in the process that finished it.
    """

    folder: Path
    command: str
    request: Mapping[str, Any]
    settings: Settings
    seed: int
    threads: int
    resumed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The folder for states that are of no use once the job is done."""
        return self.folder / WORK_FOLDER

    @property
    def finished(self) -> bool:
        """Whether the job has come to its end: the manifest is written last."""
        return (self.folder / MANIFEST_FILE).is_file()

    def remember(self, name: str, value: Any, what: str) -> None:
        """Keep a fact; a resumed job checks it against what it found before.

        Raises:
            InputError: it is not the same any more.
        """
        if name in self.facts and self.facts[name] != value:
            raise InputError(
                f"{what} changed since this job was started", hint="start a new job, or bring back what was there"
            )
        if name not in self.facts:
            self.facts[name] = value
            self.save()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Keep how many seconds a stage took."""
        start = time.perf_counter()
        yield
        self.timings_s[name] = round(time.perf_counter() - start, 3)
        self.save()

    def save(self) -> None:
        """Write job.json."""
        write_json(
            self.folder / JOB_FILE,
            {
                "schema": JOB_SCHEMA,
                "command": self.command,
                "request": dict(self.request),
                "settings": self.settings.to_json(),
                "seed": self.seed,
                "threads": self.threads,
                "facts": self.facts,
                "timings_s": self.timings_s,
            },
        )

    def clear_work(self) -> None:
        """Remove the states; the job is done."""
        shutil.rmtree(self.work, ignore_errors=True)


def start_job(
    folder: Path, command: str, request: Mapping[str, Any], settings: Settings, *, seed: int, threads: int
) -> Job:
    """Begin a job in a new or empty folder.

    Raises:
        OutputError: the folder has other content or cannot be written.
    """
    check_output_folder(folder)
    with writing(folder):
        (folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    job = Job(folder, command, request, settings, seed, threads)
    job.save()
    return job


def resume_job(folder: Path, command: str, request: Mapping[str, Any] | None = None) -> Job:
    """Open the folder of a job that was started before.

    Args:
        request: what is asked for now; None: whatever the job was asked for.

    Raises:
        ArtifactError: there is no job, or one of another command, or job.json is damaged.
        InputError: something else is asked for now.
    """
    document = _read(folder)
    if document["command"] != command:
        raise ArtifactError(
            f"'{folder}' is a run of `{document['command']}`, not of `{command}`", hint="name a run of this command"
        )
    if request is not None:
        _check_same(document["request"], request, folder)
    try:
        settings = Settings(document["settings"])
    except SettingError as error:
        raise ArtifactError(f"'{folder / JOB_FILE}' was written by another version: {error}") from error
    return Job(
        folder,
        command,
        document["request"],
        settings,
        document["seed"],
        document["threads"],
        resumed=True,
        facts=document["facts"],
        timings_s=document["timings_s"],
    )


_KINDS: Mapping[str, type] = {
    "command": str, "request": dict, "settings": dict, "seed": int, "threads": int, "facts": dict, "timings_s": dict,
}  # fmt: skip


def _read(folder: Path) -> dict[str, Any]:
    path = folder / JOB_FILE
    if not path.is_file():
        if (folder / MANIFEST_FILE).is_file():
            raise ArtifactError(f"'{folder}' is a finished run that cannot be resumed: it has no {JOB_FILE}")
        raise ArtifactError(f"'{folder}' holds no job to go on with", hint="name the run folder that was started")
    try:
        if path.stat().st_size > MAX_JOB_BYTES:
            raise ArtifactError(f"'{path}' is damaged: it is too large")
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != JOB_SCHEMA:
        raise ArtifactError(f"'{path}' is damaged, or not a job of mggc-edge")
    for name, kind in _KINDS.items():
        if not isinstance(document.get(name), kind):
            raise ArtifactError(f"'{path}' is damaged: its '{name}' is missing or of another kind")
    if not 1 <= document["threads"] <= 1024:
        raise ArtifactError(f"'{path}' is damaged: {document['threads']} threads")
    return document


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise InputError(
                f"'{folder}' was started with {name} {_shown(before.get(name))}, not {_shown(now.get(name))}",
                hint="resume with the same flags, or with none but --resume and the folder",
            )


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a job's folder for this process.

    Raises:
        ArtifactError: another process works in it.
    """
    import fcntl

    with writing(folder):
        file: IO[bytes] = (folder / WORK_FOLDER / ".lock").open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(f"another process works in '{folder}'", hint="wait for it, or stop it") from error
        yield


def files_below(root: Path, names: Sequence[str]) -> list[Path]:
    """Return every file at or below the places `names` of a folder, in order, hidden ones left out."""
    found: list[Path] = []
    for name in names:
        place = root / name
        if place.is_file():
            found.append(place)
        for at, folders, files in os.walk(place):
            folders.sort()
            found += [Path(at, file) for file in sorted(files) if not file.startswith(".")]
    return found
