"""The loop that drives every stage of training: seeds, log lines, states on disk, and stopping before harm is done."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from mggc_edge.artifacts import writing
from mggc_edge.errors import ArtifactError, TrainingError
from mggc_edge.training.order import step_seed
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.state import read_facts, read_state, save_state

NEW_FOLDER = "start into a new folder"  # ends the hint of values that are no numbers
SAVE_EVERY_S = 20.0
MAX_SAVE_EVERY_S = 45.0  # with the time of one step below a minute, which is what a kill may cost


class Stage(Protocol):
    """Something that is trained step by step."""

    @property
    def name(self) -> str:
        """What the log and the files call it."""

    @property
    def steps(self) -> int:
        """How many steps it takes."""

    def step(self, number: int) -> Mapping[str, Any]:
        """Do optimisation step `number`, counted from 0; return what the log shall keep of it."""

    def state(self) -> dict[str, Tensor]:
        """Return everything that a step changes, by name."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `steps`; `seconds_left` None until that can be said."""

    stage: str
    done: int
    steps: int
    metrics: Mapping[str, Any]
    seconds_left: float | None


Watch = Callable[[Progress], None]


class Journal:
    """metrics.jsonl: one JSON object a line. It is cut back to where a state was saved when a stage goes on from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line; a process that is killed afterwards does not lose it."""
        with writing(self.path):
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()

    @property
    def size(self) -> int:
        """Bytes so far, all of them on the disk when this returns."""
        with writing(self.path):
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Forget what was written after the first `size` bytes."""
        with writing(self.path):
            self._file.truncate(size)

    def cut_steps(self, stage: str, number: int) -> None:
        """Forget the lines of a stage from step `number` on, and what is no line, wherever they are in the file."""
        with writing(self.path):
            lines = self.path.read_bytes().splitlines(keepends=True)
            keep = [_is_before(line, stage, number) for line in lines]
            start = keep.index(False) if False in keep else len(lines)  # what is before it need not be written again
            self._file.truncate(sum(map(len, lines[:start])))
            self._file.write(b"".join(itertools.compress(lines[start:], keep[start:])))
            self._file.flush()

    def start_of(self, stage: str) -> int | None:
        """Return where the first line of a stage, or a line that was never ended, begins; None: there is neither."""
        begins, at = json.dumps({"stage": stage}).encode().rstrip(b"}"), 0
        with writing(self.path), self.path.open("rb") as file:
            for line in file:
                if line.startswith((begins + b",", begins + b"}")) or not line.endswith(b"\n"):
                    return at
                at += len(line)
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk is full for the buffered line as well, and was named before.
        with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():
            self.close()


def _is_before(line: bytes, stage: str, number: int) -> bool:
    """Return whether a line of the log is whole, and not of a stage's step `number` or a later one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict) or not line.endswith(b"\n"):
        return False
    step = record.get("step")
    return record.get("stage") != stage or (isinstance(step, int) and step < number)


def run_stage(
    stage: Stage,
    folder: Path,
    journal: Journal,
    *,
    seed: int,
    watch: Watch = lambda _: None,
    saved: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
    processes: Processes = ALONE,
) -> bool:
    """Run a stage to its end, from where its state in `folder` says it stopped; return whether there was one.

    Every step starts from its own seed, so that a run that was killed and goes on equals one that was not, bit for
    bit on the same processor, libraries and number of threads. A stage without a state begins anew: if the log has
    lines of it, they and what came after them are void, and the states of later stages go with them. A log that is
    shorter than the state says has lost lines; the state is good all the same, and no step is logged twice.

    Args:
        saved: called whenever a state was written.
        tell: told of a log that has lost lines.
        processes: that train the stage; this is rank 0 of them, and the others run `follow_stage`. The log has the
            means of what they computed; the state is this one's.

    Raises:
        TrainingError: a loss or a weight is no longer a number; the last state that was saved is good.
        OutputError: a state or the log cannot be written.
        ArtifactError: the state is damaged, or of another stage: other networks, or another length.
    """
    path = folder / f"{stage.name}.state"
    number = 0
    if (found := read_state(path)) is not None:
        tensors, facts = found
        number = _resume_at(path, stage, facts, processes.size)
        try:
            stage.load_state(tensors)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"the state '{path}' does not fit this stage: it is of other networks",
                hint="bring back the files that were changed in the run folder, or remove the state to do this stage "
                "again",
            ) from error
        if number < stage.steps:
            _go_back(journal, stage.name, facts, tell)
    else:
        _begin_anew(stage.name, folder, journal)
        # It knows where the log was: what a process writes that is killed before the next state is cut off again.
        _save(path, stage, stage.state(), 0, journal, processes)
    processes.barrier()  # the others go on from the same state
    first, start = number, time.monotonic()
    last, every = start, SAVE_EVERY_S
    while number < stage.steps:
        torch.manual_seed(step_seed(seed, stage.name, number))
        metrics = processes.mean_numbers(stage.step(number))
        _check(stage.name, number, metrics, _hinted_as(stage))
        journal.write({"stage": stage.name, "step": number, **metrics})
        number += 1
        now = time.monotonic()
        if number == stage.steps or now - last >= every:
            tensors = stage.state()
            _check_tensors(stage.name, number, tensors, _hinted_as(stage))
            _save(path, stage, tensors, number, journal, processes)
            saved()
            last = time.monotonic()
            every = min(max(SAVE_EVERY_S, 20 * (last - now)), MAX_SAVE_EVERY_S)  # at most a twentieth of the time
        done = number - first
        left = (now - start) / done * (stage.steps - number) if done >= 3 or now - start > 2 else None
        watch(Progress(stage.name, number, stage.steps, metrics, left))
    processes.barrier()  # the last state is there
    return found is not None


def follow_stage(stage: Stage, folder: Path, *, seed: int, processes: Processes) -> None:
    """Run a stage in a process of a higher rank: from the state in `folder` on, and in the end with rank 0's result.

    Nothing is written or checked here. What is random in a network, dropout, is drawn from another seed in each
    process; what decides about pictures and gates is not. Statistics of batch norms, and pools of pictures, are of each
    process, until rank 0's take their place where a stage begins, goes on or ends.

    Raises:
        ConnectionLostError: another process has ended.
        ArtifactError: the state that rank 0 wrote cannot be read here.
    """
    path = folder / f"{stage.name}.state"
    processes.barrier()
    number = _take_over(path, stage, processes.size)
    while number < stage.steps:
        torch.manual_seed(step_seed(seed, f"{stage.name}/process {processes.rank}", number))
        processes.mean_numbers(stage.step(number))
        number += 1
    processes.barrier()
    _take_over(path, stage, processes.size)


def _take_over(path: Path, stage: Stage, processes: int) -> int:
    """Load what rank 0 wrote, and return how many steps it has done."""
    found = read_state(path)
    if found is None:
        raise ArtifactError(
            f"the state '{path}' is not there for every process", hint="put the run into a folder that all of them see"
        )
    tensors, facts = found
    stage.load_state(tensors)
    return _resume_at(path, stage, facts, processes)


def _save(
    path: Path, stage: Stage, tensors: Mapping[str, Tensor], done: int, journal: Journal, processes: Processes
) -> None:
    facts = {"step": done, "steps": stage.steps, "journal": journal.size, "processes": processes.size}
    save_state(path, tensors, facts)


def _go_back(journal: Journal, stage: str, facts: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Bring the log to where it was when a state was saved."""
    journal.cut_steps(stage, facts["step"])
    if journal.size < facts["journal"]:
        tell(f"note: '{journal.path}' has lost lines that were written to it; '{stage}' goes on, and they stay lost")


def _begin_anew(stage: str, folder: Path, journal: Journal) -> None:
    """Forget what is logged from the first line of a stage on, and the states that were saved after it."""
    start = journal.start_of(stage)
    if start is None:
        return
    for path in folder.glob("*.state"):
        try:
            size = read_facts(path).get("journal")
        except ArtifactError:  # damaged: it says so itself, if it is of use at all
            continue
        if isinstance(size, int) and size > start:
            with writing(path):
                path.unlink()
    journal.cut(start)  # last: a process that is killed before finds the lines again


def _resume_at(path: Path, stage: Stage, facts: Mapping[str, Any], processes: int) -> int:
    """Return how many steps a state stands for.

    Each process sees as many pictures a step as one alone: another number of them has other steps, of which the same
    part is done.
    """
    number, steps, size, before = (facts.get(key) for key in ("step", "steps", "journal", "processes"))
    if type(number) is int and type(steps) is int and 0 <= number <= steps and type(size) is int:
        if steps == stage.steps:
            return number
        if type(before) is int and before != processes and _as_long(steps, before, stage.steps, processes):
            return number * stage.steps // max(steps, 1)
    raise ArtifactError(
        f"the state '{path}' belongs to a stage of {steps} steps, and this one has {stage.steps}",
        hint="go on with the flags that the job was started with",
    )


def _as_long(steps: int, processes: int, other_steps: int, other_processes: int) -> bool:
    """Return whether two stages see as many pictures, up to the rounding of their steps."""
    return abs(steps * processes - other_steps * other_processes) <= max(processes, other_processes)


def _hinted_as(stage: Stage) -> str:
    """Return by what name hints know a stage: its own, or that of the method where several have a stage of its name."""
    return str(getattr(stage, "hinted_as", stage.name))


def _check(stage: str, number: int, metrics: Mapping[str, Any], known: str) -> None:
    bad = _not_finite(metrics)
    if bad:
        weights = {} if number else _WEIGHTS.get(known, {})
        name = next((name for name in bad if name in weights), bad[0])  # a part says more than the sum
        blamed = name
        if bad == ["loss_g"] and name not in weights:  # finite parts whose sum is too large
            blamed = max(weights.keys() & metrics.keys(), key=lambda part: abs(metrics[part]), default=name)
        raise TrainingError(
            f"step {number} of stage '{stage}': {name} is no longer a number; the last good state is kept",
            hint=_way_out(known, weights.get(blamed)),
            setting=weights.get(blamed) or _RATES.get(known),
        )


def _not_finite(metrics: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names of the values that are no finite numbers, a value within another as outer.inner."""
    found = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found += _not_finite(value, f"{prefix}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(f"{prefix}{name}")
    return found


def _check_tensors(stage: str, done: int, tensors: Mapping[str, Tensor], known: str) -> None:
    # A loss is computed before the update: finite losses do not show that the weights after the last update are finite.
    # They are looked at before each save, not after each step: it may have happened earlier.
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"stage '{stage}', found at step {done - 1}: a value of {name} is no longer a number; "
                "the last good state is kept",
                hint=_way_out(known),
                setting=_RATES.get(known),
            )


def _way_out(stage: str, weight: str | None = None) -> str:
    """Return what to do about values that are no numbers; `weight`: the setting of a loss that had learnt nothing."""
    if weight is not None:
        return (
            f"nothing was learnt yet: lower --set {weight}= if it was raised, else the values of the networks that "
            f"were given are too large; {NEW_FOLDER}"
        )
    rate = _RATES.get(stage)
    what = "the learning rate of this stage with --set" if rate is None else f"--set {rate}="
    return f"lower {what}, and {NEW_FOLDER}"


# The learning rate of a stage, where the stage has but one.
_RATES = {
    "discriminator": "discriminator.learning_rate",
    "encoder": "encoder.learning_rate",
    "finetune": "finetune.learning_rate",
    "gan-slimming": "gan_slimming.learning_rate",
    "prune": "mggc.learning_rate",
    "train": "train.learning_rate",
}
# What a metric of a stage is multiplied by. Each is computed before the first update, and so at the first step no
# learning rate has a part in it. A GAN's loss in `train` has no weight, and in pix2pix follows D's first update.
_WEIGHTS = {
    "prune": {
        "loss_g": "mggc.lambda_1",
        "loss_d": "mggc.lambda_2",
        "gradient_norm_g": "mggc.lambda_1",
        "gradient_norm_d": "mggc.lambda_2",
    },
    "gan-slimming": {"loss_gan": "gan_slimming.gan_weight", "loss_distance": "gan_slimming.beta"},
    "finetune": {
        "loss_distill_content": "distill.content",
        "loss_distill_style": "distill.style",
        "loss_distill_pixels": "distill.pixels",
        "loss_gan": "finetune.gan_weight",
        "loss_cycle": "train.lambda_cycle",
        "loss_identity": "train.lambda_identity",
        "loss_l1": "train.lambda_l1",
    },
    "train": {
        "loss_cycle": "train.lambda_cycle",
        "loss_identity": "train.lambda_identity",
        "loss_l1": "train.lambda_l1",
    },
}
