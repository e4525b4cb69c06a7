"""The folder of a job that takes long: what was asked for, what is finished, and where it goes on after a stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mggc_edge.artifacts import (
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    MANIFEST_FILE,
    MEASUREMENTS,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    SLIM_FOLDER,
    another_file,
    changed_file,
    check_output_folder,
    read_json,
    read_manifest,
    write_json,
    writing,
)
from mggc_edge.errors import ArtifactError, InputError, MggcEdgeError, OutputError, SettingError
from mggc_edge.presets import preset_named
from mggc_edge.settings import Settings

JOB_FILE, WORK_FOLDER, LOG_FILE, LOCK_FILE = "job.json", "work", "logs/metrics.jsonl", ".lock"
MADE = (PLAN_FILE, DISCRIMINATOR_PLAN_FILE, ORIGINAL_FOLDER, SLIM_FOLDER, EXPORT_FOLDER)  # what a finished job is for
JOB_SCHEMA = "mggc-edge/job/1"
MAX_JOB_BYTES = 2**20
WRITTEN = "written"  # among a job's facts, see `jobs.written`
PARTIAL = ".partial"  # ends the name of a file that is being written
# Of a request, what may be a path that is relative to where the job was started.
PATHS = (
    "model", "discriminator", "partner", "plan", "source", "target", "data", "feature_net", "inception", "segmenter",
    "encoder", "encoder_weights", "perceptual", "init",
)  # fmt: skip
PREFIXES = {"encoder": "onnx:"}  # of what is a path only after these words


@dataclass
class Job:
    """A job in its folder.

    Attributes:
        folder: the run folder.
        command: "compress" or "train".
        request: what was asked for, as JSON, with paths that lead there from the present folder; a job goes on only
            with the same.
        base, typed: the folder where the job was started, None where that is not known, and the request as it was
            typed there; both are kept in job.json.
        settings, seed, threads: the same from start to end, whatever the flags of a resumed run are.
            But for those that are `changed`, see `jobs.changes`.
        resumed: it was started before. made: its folder was not there before.
        facts: what the job found out and must find again: hashes of what it reads.
        timings_s: seconds that each stage took so far, in all processes together.
    """

    folder: Path
    command: str
    request: Mapping[str, Any]
    settings: Settings
    seed: int
    threads: int
    resumed: bool = False
    made: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    base: Path | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    _running: tuple[str, float] | None = field(default=None, init=False)  # a stage, and the clock when it last counted

    @property
    def work(self) -> Path:
        """The folder for states that are of no use once the job is done."""
        return self.folder / WORK_FOLDER

    @property
    def finished(self) -> bool:
        """Whether the job has come to its end: the manifest is written last, and says so.

        A measurement that was removed since is made again; of older versions it is not known from what.
        """
        if not (self.folder / MANIFEST_FILE).is_file():
            return False
        manifest = read_manifest(self.folder)
        listed = {entry.get("path") for entry in manifest["files"] if isinstance(entry, dict)}
        again = WRITTEN in self.facts and any(
            name in listed and not (self.folder / name).is_file() for name in MEASUREMENTS
        )
        return manifest.get("complete", True) is True and not again

    def result(self) -> dict[str, Any]:
        """Return the document of a finished job.

        Raises:
            ArtifactError: the manifest is damaged, or a network or a plan is not the one that it describes.
        """
        if (name := changed_file(self.folder, MADE)) is not None:
            raise another_file(self.folder / name, "bring it back from a copy, or start again into another folder")
        document = read_manifest(self.folder).get("result")
        if not isinstance(document, dict):
            raise ArtifactError(f"the manifest of '{self.folder}' holds no result")
        return document

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
        """Keep how many seconds a stage takes, also where it is stopped: it goes on in another process."""
        self._running = (name, time.perf_counter())
        try:
            yield
        except BaseException:
            with contextlib.suppress(OutputError):  # what stopped the stage is what matters
                self.save()
            raise
        else:
            self.save()
        finally:
            self._running = None

    def _count(self) -> None:
        """Add to the running stage's seconds those since it last counted."""
        if self._running is not None:
            (name, before), now = self._running, time.perf_counter()
            self.timings_s[name] = round(self.timings_s.get(name, 0.0) + now - before, 3)
            self._running = (name, now)

    def save(self) -> None:
        """Write job.json, with the seconds of a stage that is running."""
        self._count()
        write_json(
            self.folder / JOB_FILE,
            {
                "schema": JOB_SCHEMA,
                "command": self.command,
                "request": dict(self.typed),
                **({} if self.base is None else {"cwd": str(self.base)}),
                "settings": self.settings.to_json(),
                "seed": self.seed,
                "threads": self.threads,
                "facts": self.facts,
                "timings_s": self.timings_s,
            },
        )

    def take_back(self) -> None:
        """Remove what `start_job` made, if nothing was done since: the same command can then be given again."""
        worked = any(path.name != LOCK_FILE for path in self.work.glob("*"))
        if self.resumed or worked or (self.folder / ORIGINAL_FOLDER).exists():
            return
        (self.folder / JOB_FILE).unlink(missing_ok=True)
        for name in (WORK_FOLDER, Path(LOG_FILE).parts[0]):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if self.made:
            with contextlib.suppress(OSError):  # not empty: somebody else's
                self.folder.rmdir()

    def discard(self, names: Sequence[str], facts: Sequence[str] = (), stages: Sequence[str] = ()) -> None:
        """Remove files, folders, facts and timings that followed from what is made again; forget their hashes.

        Raises:
            OutputError: they cannot be removed.
        """
        for path in (self.folder / name for name in names):
            with writing(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        self.facts = {name: value for name, value in self.facts.items() if name not in facts}
        if WRITTEN in self.facts:
            below = tuple(f"{name}/" for name in names)
            self.facts[WRITTEN] = {
                name: sha
                for name, sha in self.facts[WRITTEN].items()
                if name not in names and not name.startswith(below)
            }
        self.timings_s = {name: value for name, value in self.timings_s.items() if name not in stages}

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
    if _goes_on(folder, command):
        raise OutputError(
            f"'{folder}' holds a run that was started before", hint=f"go on with: {resume_line(command, folder)}"
        )
    check_output_folder(folder)
    job = Job(folder, command, request, settings, seed, threads, made=not folder.exists(), base=_here(), typed=request)
    with writing(folder):
        (folder / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    job.save()
    return job


def _goes_on(folder: Path, command: str) -> bool:
    """Return whether a folder holds an unfinished job of this command."""
    try:
        return not resume_job(folder, command).finished
    except (MggcEdgeError, OSError, ValueError):
        return False


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


def resume_line(command: str, folder: Path) -> str:
    """Return the command that goes on with the job in a folder."""
    return shlex.join(["mggc-edge", command, "--resume", str(folder)])


def resume_job(folder: Path, command: str) -> Job:
    """Open the folder of a job that was started before, perhaps from another folder than the present one.

    Raises:
        ArtifactError: there is no job, or one of another command, or job.json is damaged.
    """
    if folder.is_symlink():  # runs/latest may point to another run tomorrow
        folder = folder.parent / folder.readlink()
    document = _read(folder)
    if document["command"] != command:
        raise ArtifactError(
            f"'{folder}' is a run of `{document['command']}`, not of `{command}`", hint="name a run of this command"
        )
    try:
        settings = Settings(document["settings"])
    except SettingError as error:
        raise ArtifactError(f"'{folder / JOB_FILE}' was written by another version: {error}") from error
    base = None if document["cwd"] is None else Path(document["cwd"])
    return Job(
        folder,
        command,
        _reached(document["request"], base),
        settings,
        document["seed"],
        document["threads"],
        resumed=True,
        facts=document["facts"],
        timings_s=document["timings_s"],
        base=base,
        typed=document["request"],
    )


def _reached(request: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Return a request with paths that lead, from the present folder, to what they named in `base`.

    What is not there any more, but is here, was moved together with where the job was started.
    """
    found = dict(request)
    if base is None or base == _here():
        return found
    for name in PATHS:
        value, prefix = found.get(name), PREFIXES.get(name, "")
        if isinstance(value, str) and value.startswith(prefix):
            path = value.removeprefix(prefix)
            there = str(base / path)  # an absolute path stays as it is
            found[name] = prefix + (path if leads_somewhere(path) and not leads_somewhere(there) else there)
    return found


def leads_somewhere(text: str) -> bool:
    """Return whether a path, or the path before a colon of FILE:TENSOR, is there."""
    ends = [len(text), *(at for at, letter in enumerate(text) if letter == ":" and at > 0)]
    try:
        return any(Path(text[:end]).exists() for end in ends)
    except (OSError, ValueError):  # too long, or with a zero in it
        return False


_KINDS: Mapping[str, type] = {
    "command": str, "request": dict, "settings": dict, "seed": int, "threads": int, "facts": dict, "timings_s": dict,
}  # fmt: skip


def _read(folder: Path) -> dict[str, Any]:
    path = folder / JOB_FILE
    if not path.is_file():
        if (folder / MANIFEST_FILE).is_file():
            raise ArtifactError(f"'{folder}' is a finished run that cannot be resumed: it has no {JOB_FILE}")
        raise ArtifactError(f"'{folder}' holds no job to go on with", hint="name the run folder that was started")
    document = read_json(path, max_bytes=MAX_JOB_BYTES)
    if document.get("schema") != JOB_SCHEMA:
        raise ArtifactError(f"'{path}' is damaged, or not a job of mggc-edge")
    for name, kind in _KINDS.items():
        if not isinstance(document.get(name), kind):
            raise ArtifactError(f"'{path}' is damaged: its '{name}' is missing or of another kind")
    if not isinstance(document.setdefault("cwd", None), str | None):  # jobs of older versions have none
        raise ArtifactError(f"'{path}' is damaged: its 'cwd' is of another kind")
    if not isinstance(document["facts"].get(WRITTEN, {}), dict):
        raise ArtifactError(f"'{path}' is damaged: its '{WRITTEN}' is of another kind")
    if not 1 <= document["threads"] <= 1024:
        raise ArtifactError(f"'{path}' is damaged: {document['threads']} threads")
    return document


def command_line(command: str, job: Job, usual: Mapping[str, Any]) -> str:
    """Return the command that makes the same run in a new folder, given where the job was started.

    Args:
        usual: the request with every flag at its default; those, and settings at theirs, are left out. Defaults are
            a preset's where the job has one.
    """
    words = ["mggc-edge", command]
    preset = job.typed.get("preset")
    chosen = None if preset is None else preset_named(preset)
    if chosen is not None:
        usual = {**usual, **chosen.request_values()}
    for name, value in job.typed.items():
        if value == usual[name]:
            continue
        shown = f"{value[0]}x{value[1]}" if name == "image_size" else str(value)
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [shown])
    defaults = Settings(None if chosen is None else chosen.setting_values()).to_json()
    for name, value in job.settings.to_json().items():
        if value != defaults[name]:
            words += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    return shlex.join([*words, "--seed", str(job.seed), "--threads", str(job.threads)])


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a job's folder for this process, and remove what a killed one left half written.

    Raises:
        ArtifactError: another process works in it.
        OutputError: it cannot be written.
    """
    import fcntl

    with writing(folder):
        (folder / WORK_FOLDER).mkdir(exist_ok=True)
        file: IO[bytes] = (folder / WORK_FOLDER / LOCK_FILE).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(f"another process works in '{folder}'", hint="wait for it, or stop it") from error
        for left in folder.rglob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)
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
