"""A job on the command line: started or gone on with, watched, and told how to go on when it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mggc_edge.cli.options import load_settings, parse_align, parse_image_size, was_given
from mggc_edge.cli.output import Output
from mggc_edge.cli.progress import StageProgress

if TYPE_CHECKING:
    from mggc_edge.errors import MggcEdgeError, TrainingError
    from mggc_edge.jobs.folder import Job
    from mggc_edge.jobs.hooks import Hooks
    from mggc_edge.settings import Settings

# Parameters of a job's command that do not change what is done; those of a request may be others when it goes on.
_FREE = {"resume", "out_folder", "as_json", "output", "compute", "devices"}
_FREE_OF_REQUEST = {"min_psnr"}
_FREE_UNTIL_MEASURED = {"feature_net", "inception", "segmenter"}  # they take part in nothing before quality.json
_FREE_UNTIL_EXPORTED = {"runtime", "precision", "min_precision_psnr"}  # and these in nothing before the export

LEAST_RATE = 1e-8  # that a setting takes
_FOLDERS = {"source": "DIR", "target": "DIR", "init": "DIR", "data": "ROOT"}  # of the flags that name one


class JobInterruptedError(Exception):
    """A job was stopped by Ctrl-C or by SIGTERM; `message` and `hint` say what is kept and how to go on."""

    def __init__(self, command: str, folder: Path) -> None:
        from mggc_edge.jobs.folder import resume_line

        self.message = f"interrupted; what was done is kept in '{folder}'"
        self.hint = f"go on with: {resume_line(command, folder)}"
        super().__init__(self.message)


def start(
    folder: Path,
    command: str,
    request: Mapping[str, Any],
    settings: Settings,
    seed: int,
    threads: int | None,
    processes: int = 1,
) -> Job:
    """Begin a job in a new folder. Where no threads are given, `processes` on this machine share its cores."""
    from mggc_edge.jobs.folder import start_job

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return start_job(folder, command, request, settings, seed=seed, threads=threads or max(1, cores // processes))


def go_on(context: typer.Context, command: str, resume: str, out_folder: Path | None, usual: Path | None) -> Job:
    """Open the job that `--resume` means. Flags may be left out; those that are given must be what it began with.

    A setting may be another one while no stage that reads it is finished, see `jobs.changes`. A path may be another
    one, as files move: what was read is checked by its hash. What only measures may be another network until it has
    measured, and "" leaves it out; runtimes and precisions may be others until files were exported for them.

    Args:
        resume: the value of --resume, "" for none.
        usual: the folder where neither --resume nor --out names one.

    Raises:
        InputError: it was started with other flags.
    """
    from mggc_edge.jobs.changes import set_anew
    from mggc_edge.jobs.folder import resume_job

    if resume and out_folder is not None and Path(resume) != out_folder:
        raise typer.BadParameter(f"--resume names '{resume}' and --out '{out_folder}'; give one of them.")
    folder = Path(resume) if resume else out_folder or usual
    if folder is None:
        raise typer.BadParameter("--resume needs the run to go on with: --resume RUN, or --out RUN --resume.")
    job = resume_job(folder, command)
    set_anew(job, _check_same(context, job))
    names = [name for name in job.typed if was_given(context, name) and _may_change(job, name, context.params[name])]
    new = {name: None if context.params[name] == "" else context.params[name] for name in names}
    new = {name: value for name, value in new.items() if not _equal(name, job.request.get(name), value)}
    job.request = {**job.request, **new}
    job.typed = {**job.typed, **{name: _from_base(job, name, value) for name, value in new.items()}}
    return job


def _may_change(job: Job, name: str, now: object) -> bool:
    """Return whether a job may go on with this value of a flag, whatever it was started with."""
    from mggc_edge.jobs.folder import PATHS, PREFIXES

    if name in _FREE_OF_REQUEST:
        return True
    if name in _FREE_UNTIL_MEASURED:
        from mggc_edge.artifacts import QUALITY_FILE

        return not (job.folder / QUALITY_FILE).is_file()
    if name in _FREE_UNTIL_EXPORTED:
        from mggc_edge.artifacts import RECORD_FILE

        return not (job.folder / RECORD_FILE).is_file()
    before, prefix = job.request.get(name), PREFIXES.get(name, "")
    named = isinstance(before, str) and isinstance(now, str) and now != ""
    # Where nothing is left to do, nothing is read, and no hash can tell.
    return (
        name in PATHS and named and str(before).startswith(prefix) and str(now).startswith(prefix) and not job.finished
    )


def _from_base(job: Job, name: str, value: object) -> object:
    """Return a flag's value as it is typed where the job was started."""
    from mggc_edge.jobs.folder import PATHS, PREFIXES

    if name not in PATHS or not isinstance(value, str) or job.base == Path.cwd():
        return value
    prefix = PREFIXES.get(name, "")
    return prefix + str(Path.cwd() / value.removeprefix(prefix))


def run_job(
    out: Output, job: Job, run: Callable[[Job, Hooks], dict[str, Any]], begun: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Do what is left of a job, show how far it is, and return its document.

    What cannot be begun leaves no folder behind. `begun` is called where it can. An error that leaves one says how to
    go on.

    Raises:
        JobInterruptedError: it was stopped.
    """
    from mggc_edge.errors import MggcEdgeError
    from mggc_edge.jobs.folder import JOB_FILE
    from mggc_edge.jobs.hooks import Hooks

    if job.finished:
        out.remark(f"'{job.folder}' is finished; nothing is left to do")
        return {**job.result(), "run": str(job.folder)}  # which may have been moved since

    def checked() -> None:
        if job.resumed:
            job.save()  # with the flags that it goes on with
        begun()

    try:
        with StageProgress(out) as progress:
            return run(
                job,
                Hooks(
                    tell=progress.tell,
                    watch=progress.watch,
                    track=progress.track,
                    skipped=lambda _path, error: progress.tell(f"skipped: {error.message}"),
                    begun=checked,
                    lost=lambda error: _lost(out, progress, error),
                ),
            )
    except MggcEdgeError as error:
        job.take_back()
        if (job.folder / JOB_FILE).is_file():
            error.hint = _way_on(error, job)
        raise
    except KeyboardInterrupt:
        raise JobInterruptedError(job.command, job.folder) from None


def _lost(out: Output, progress: StageProgress, error: MggcEdgeError) -> None:
    """Say what another process failed with, and end this one, which waits for it where no signal is heard."""
    progress.stop()
    out.error(error.message, error.hint)
    os._exit(1)


def _way_on(error: MggcEdgeError, job: Job) -> str | None:
    """Return the hint of an error that stopped a job, with how to go on where that is of use."""
    from mggc_edge.errors import CheckFailedError, InputError, OutputError, TrainingError, printable
    from mggc_edge.jobs.folder import resume_line

    line = printable(resume_line(job.command, job.folder))
    if gone := _gone(job):
        return f"bring back what was there, or name where it is now: {line} {gone}"
    if error.hint is None:  # what was checked, or was read when it went on before, would fail again
        again = isinstance(error, CheckFailedError) or (job.resumed and isinstance(error, InputError))
        return None if again else f"go on with: {line}"
    if isinstance(error, TrainingError):
        return _with_less(error, job, line)
    for flag in ("--runtime", "--precision"):
        if flag in error.hint and flag[2:] in job.typed and _may_change(job, flag[2:], ""):
            return f"{error.hint}; go on with: {line} {flag} LIST"
    return f"{error.hint}; go on with: {line}" if isinstance(error, OutputError) else error.hint


def _with_less(error: TrainingError, job: Job, line: str) -> str | None:
    """Return the hint of values that are no numbers, with the command that goes on with another value of a setting.

    A learning rate is to be a tenth of what it was; of a weight nobody knows.
    """
    from mggc_edge.jobs.changes import may_be_set
    from mggc_edge.training.loop import NEW_FOLDER

    name = error.setting
    if error.hint is None or name is None or not may_be_set(job, name):
        return error.hint
    value = "VALUE"
    if name.endswith(".learning_rate"):
        value = f"{max(job.settings[name] / 10, LEAST_RATE):.3g}"
    return error.hint.replace(NEW_FOLDER, f"go on with: {line} --set {name}={value}")


def _gone(job: Job) -> str:
    """Return the flags, with what they stand for, whose files or folders are not where they were; "" for none."""
    from mggc_edge.jobs.folder import PATHS, PREFIXES, leads_somewhere

    flags = []
    for name in PATHS:
        value, prefix = job.request.get(name), PREFIXES.get(name, "")
        if isinstance(value, str) and value.startswith(prefix) and not leads_somewhere(value.removeprefix(prefix)):
            flags.append(f"--{name.replace('_', '-')} {prefix}{_FOLDERS.get(name, 'FILE')}")
    return " ".join(flags)


def _check_same(context: typer.Context, job: Job) -> dict[str, object]:
    """Compare the flags on the command line with what the job was started with; return the settings that change."""
    from mggc_edge.jobs.changes import may_be_set

    changed: dict[str, object] = {}
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params if parameter.name}
    given = {name: value for name, value in context.params.items() if was_given(context, name) and name not in _FREE}
    config, overrides = given.pop("config", None), given.pop("set_", None)
    before = {**job.request, "seed": job.seed, "threads": job.threads}
    for name, value in given.items():
        if name == "image_size":
            value = list(parse_image_size(value) or ())
        if name == "align":
            value = parse_align(value)
        if not (_may_change(job, name, value) or _equal(name, before.get(name), value)):
            raise _other(job.folder, flags[name], before.get(name), value)
    if config or overrides:
        now = load_settings(config, overrides, job.request.get("preset")).to_json()
        typed = [text.partition("=")[0].strip() for text in overrides or ()]
        for name in now if config else typed:
            if job.settings[name] == now[name]:
                continue
            if name not in typed or not may_be_set(job, name):
                raise _other(job.folder, f"--set {name}=", job.settings[name], now[name])
            changed[name] = now[name]
    return changed


def _equal(name: str, before: object, now: object) -> bool:
    """Return whether two values of a flag mean the same: the same file, or the same number."""
    from mggc_edge.jobs.folder import PATHS, PREFIXES
    from mggc_edge.jobs.request import parse_budget

    if isinstance(before, str) and isinstance(now, str):
        if name in PATHS:
            prefix = PREFIXES.get(name, "")
            if before.startswith(prefix) and now.startswith(prefix):
                before, now = before.removeprefix(prefix), now.removeprefix(prefix)
            try:
                return before == now or Path(before).resolve() == Path(now).resolve()
            except (OSError, RuntimeError, ValueError):  # too long, or a loop of links
                return False
        if name == "budget":
            return parse_budget(before) == parse_budget(now)
    return before == now


def _other(folder: Path, flag: str, before: object, now: object) -> Exception:
    from mggc_edge.errors import InputError

    started = (
        f"without {flag}"
        if before is None or (before is False and not flag.endswith("="))
        else f"with {_written(flag, before)}"
    )
    return InputError(
        f"'{folder}' was started {started}, not with {_written(flag, now)}",
        hint="resume with the same flags, or with none but --resume and the folder",
    )


def _written(flag: str, value: object) -> str:
    if value is True and not flag.startswith("--set "):
        return flag
    text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return f"{flag}{text}" if flag.endswith("=") else f"{flag} {text}"
