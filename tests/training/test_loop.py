"""A stage that was stopped at any moment ends in the same bytes as one that was not, and harm is stopped early."""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mggc_edge.errors import ArtifactError, OutputError, TrainingError
from mggc_edge.settings import Settings
from mggc_edge.training import loop
from mggc_edge.training.loop import Journal, Progress, follow_stage, run_stage
from mggc_edge.training.order import step_seed
from mggc_edge.training.processes import Processes
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part, read_state, save_state
from tests.training.training_helpers import assert_equal


class Stopped(Exception):
    pass


class Little(nn.Module):
    """A stage with dropout and Adam; `harm` may change what a step reports or leaves behind."""

    name = "finetune"

    def __init__(self, steps: int = 12, harm: Callable[[Little, int, dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self.steps, self._harm = steps, harm
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.adam = torch.optim.Adam(self.net.parameters(), 0.05, fused=True)

    def step(self, number: int) -> Mapping[str, Any]:
        loss = (self.net(torch.randn(5, 4)) - 1).square().mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        metrics: dict[str, Any] = {"loss": loss.item(), "learning_rate": 0.05, "note": f"step {number}"}
        if self._harm is not None:
            self._harm(self, number, metrics)
        return metrics

    def state(self) -> dict[str, Tensor]:
        return named("net", self.net.state_dict()) | named("o", optimizer_tensors("G", self.adam))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.net.load_state_dict(part(tensors, "net"))
        load_optimizer("o.G", self.adam, tensors)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes 4 s on with each look: a state is saved about every fifth step."""
    seconds = [0.0]

    def look() -> float:
        seconds[0] += 4.0
        return seconds[0]

    monkeypatch.setattr(time, "monotonic", look)
    return seconds


def run(stage: Little, folder: Path, watch: Callable[[Progress], None] = lambda _: None, seed: int = 3) -> bool:
    journal = Journal(folder / "logs" / "metrics.jsonl")
    try:
        return run_stage(stage, folder, journal, seed=seed, watch=watch)
    finally:
        journal.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "logs" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def stopping_after(steps: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.done == steps:
            raise Stopped

    return watch


def saved(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    found = read_state(folder / "finetune.state")
    assert found is not None
    return found


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [[6], [7, 9], [5, 11, 11], [12]])
def test_a_run_that_was_stopped_equals_one_that_was_not_bit_for_bit(
    tmp_path: Path, clock: list[float], stop: list[int]
) -> None:
    whole = Little()
    assert run(whole, tmp_path / "whole") is False
    broken = tmp_path / "broken"
    for steps in stop:
        with pytest.raises(Stopped):
            run(Little(), broken, stopping_after(steps))
        assert (broken / "finetune.state").is_file()
    last = Little()
    assert run(last, broken) is True
    assert_equal(last.state(), whole.state())
    assert (broken / "logs/metrics.jsonl").read_bytes() == (tmp_path / "whole/logs/metrics.jsonl").read_bytes()
    assert (broken / "finetune.state").read_bytes() == (tmp_path / "whole/finetune.state").read_bytes()
    assert [line["step"] for line in lines(broken)] == list(range(12))


def test_what_was_written_after_the_last_state_is_cut_off_even_half_a_line(tmp_path: Path, clock: list[float]) -> None:
    run(Little(), tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(Stopped):
        run(Little(), broken, stopping_after(8))
    done = saved(broken)[1]["step"]
    assert done < 8
    assert len(lines(broken)) == 8
    with (broken / "logs/metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "finetune", "st')
    run(Little(), broken)
    assert (broken / "logs/metrics.jsonl").read_bytes() == (tmp_path / "whole/logs/metrics.jsonl").read_bytes()


def test_lines_of_the_stages_before_stay(tmp_path: Path, clock: list[float]) -> None:
    journal = Journal(tmp_path / "logs/metrics.jsonl")
    journal.write({"stage": "prune", "step": 0})
    journal.close()
    with pytest.raises(Stopped):
        run(Little(), tmp_path, stopping_after(8))
    run(Little(), tmp_path)
    assert [(line["stage"], line["step"]) for line in lines(tmp_path)] == [
        ("prune", 0),
        *(("finetune", n) for n in range(12)),
    ]


def test_a_finished_stage_is_loaded_and_later_lines_of_the_log_are_left_alone(tmp_path: Path) -> None:
    first = Little()
    run(first, tmp_path)
    journal = Journal(tmp_path / "logs/metrics.jsonl")
    journal.write({"stage": "export"})
    journal.close()
    seen: list[Progress] = []
    again = Little()
    assert run(again, tmp_path, seen.append) is True
    assert seen == []
    assert_equal(again.state(), first.state())
    assert len(lines(tmp_path)) == 13


def test_the_seed_of_every_step_follows_from_the_seed_of_the_job(tmp_path: Path) -> None:
    seen: list[float] = []
    run(Little(3, lambda _stage, _number, _metrics: seen.append(torch.rand(()).item())), tmp_path / "0", seed=1)
    wanted = []
    for number in range(3):
        torch.manual_seed(step_seed(1, "finetune", number))
        torch.randn(5, 4), F.dropout(torch.ones(5, 8))  # what the step has drawn before
        wanted.append(torch.rand(()).item())
    assert seen == wanted
    first, other = Little(), Little()
    run(first, tmp_path / "1", seed=1)
    torch.manual_seed(99)
    run(other, tmp_path / "2", seed=2)
    assert not torch.equal(first.state()["net.0.weight"], other.state()["net.0.weight"])


# --- saving and watching --------------------------------------------------------------------------------------------


def test_a_state_is_saved_after_20_seconds_later_at_most_every_45_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saves: list[tuple[float, int]] = []

    def slow_save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        saves.append((now[0], facts["step"]))
        now[0] += 3.0 if len(saves) == 2 else 0.5

    def tick(stage: Little, number: int, metrics: dict[str, Any]) -> None:
        now[0] += 1.0

    monkeypatch.setattr(loop, "save_state", slow_save)
    run(Little(100, tick), tmp_path)
    # Before the first step; after 20 s; then 45 s, as a twentieth of 60 s is 3 s; then 20 s again, as that took 0.5 s.
    assert saves == [(0.0, 0), (20.5, 20), (68.5, 65), (89.0, 85), (104.5, 100)]


def test_the_watch_is_told_of_every_step_and_of_the_time_that_is_left(tmp_path: Path, clock: list[float]) -> None:
    seen: list[Progress] = []
    run(Little(4), tmp_path, seen.append)
    assert [(p.stage, p.done, p.steps) for p in seen] == [("finetune", n, 4) for n in (1, 2, 3, 4)]
    assert [p.metrics["note"] for p in seen] == [f"step {n}" for n in range(4)]
    assert [p.seconds_left for p in seen] == [12.0, 8.0, 4.0, 0.0]


def test_the_time_that_is_left_is_not_guessed_from_a_first_short_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    seen: list[Progress] = []
    run(Little(4), tmp_path, seen.append)
    assert [p.seconds_left for p in seen] == [None, None, 0.0, 0.0]


# --- harm -----------------------------------------------------------------------------------------------------------


def nan_loss(stage: Little, number: int, metrics: dict[str, Any]) -> None:
    if number == 9:
        metrics["loss"] = math.nan


def nan_inside(stage: Little, number: int, metrics: dict[str, Any]) -> None:
    metrics["held_out"] = {"distance": math.inf if number == 9 else 1.0, "psnr": 20.0}


def nan_weight(stage: Little, number: int, metrics: dict[str, Any]) -> None:
    if number == 11:  # the last step: no later loss would tell
        with torch.no_grad():
            stage.net.get_parameter("0.weight")[0, 0] = math.nan


@pytest.mark.parametrize(
    ("harm", "said", "kept_lines"),
    [
        (nan_loss, "step 9 of stage 'finetune': loss", 9),
        (nan_inside, "step 9 of stage 'finetune': held_out.distance", 9),
        (nan_weight, "stage 'finetune', found at step 11: a value of net.0.weight", 12),
    ],
)
def test_what_is_no_number_stops_a_stage_and_the_last_good_state_is_kept(
    tmp_path: Path,
    clock: list[float],
    harm: Callable[[Little, int, dict[str, Any]], None],
    said: str,
    kept_lines: int,
) -> None:
    with pytest.raises(TrainingError) as caught:
        run(Little(12, harm), tmp_path)
    assert caught.value.message == f"{said} is no longer a number; the last good state is kept"
    assert caught.value.hint == "lower --set finetune.learning_rate=, and start into a new folder"
    assert caught.value.setting == "finetune.learning_rate"
    assert "NaN" not in (tmp_path / "logs/metrics.jsonl").read_text()
    assert len(lines(tmp_path)) == kept_lines
    tensors, facts = saved(tmp_path)
    assert 0 < facts["step"] <= 9
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    whole = Little()
    run(whole, tmp_path / "whole")
    healed = Little()
    assert run(healed, tmp_path) is True
    assert_equal(healed.state(), whole.state())


@pytest.mark.parametrize(
    ("bad", "step", "named", "setting"),
    [
        (("loss_g", "loss_distill_content"), 0, "loss_distill_content", "distill.content"),  # the part, not the sum
        (("loss_l1",), 0, "loss_l1", "train.lambda_l1"),
        (
            ("loss_g", "loss_distill_content"),
            1,
            "loss_g",
            None,
        ),  # after an update, any of them may follow from the rate
        (("loss_d",), 0, "loss_d", None),
    ],
)
def test_at_the_first_step_the_weight_of_a_loss_is_named_and_not_the_learning_rate(
    tmp_path: Path, bad: tuple[str, ...], step: int, named: str, setting: str | None
) -> None:
    def harm(_stage: Little, number: int, metrics: dict[str, Any]) -> None:
        if number == step:
            metrics |= dict.fromkeys(bad, math.inf)

    with pytest.raises(TrainingError) as caught:
        run(Little(3, harm), tmp_path)
    assert caught.value.message == (
        f"step {step} of stage 'finetune': {named} is no longer a number; the last good state is kept"
    )
    assert caught.value.hint == (
        "lower --set finetune.learning_rate=, and start into a new folder"
        if setting is None
        else f"nothing was learnt yet: lower --set {setting}= if it was raised, else the values of the networks that "
        "were given are too large; start into a new folder"
    )
    assert caught.value.setting == (setting or "finetune.learning_rate")


def test_of_finite_parts_with_too_large_a_sum_the_weight_of_the_largest_is_named(tmp_path: Path) -> None:
    def harm(_stage: Little, _number: int, metrics: dict[str, Any]) -> None:
        metrics |= {"loss_g": math.inf, "loss_gan": 1.0, "loss_distill_style": 3e38, "loss_distill_content": 2e38}

    with pytest.raises(TrainingError, match=r"^step 0 of stage 'finetune': loss_g is no") as caught:
        run(Little(3, harm), tmp_path)
    assert str(caught.value.hint).startswith("nothing was learnt yet: lower --set distill.style= if it was raised")


def test_the_advice_names_settings_that_there_are() -> None:
    settings = Settings()
    for weights in loop._WEIGHTS.values():
        assert all(isinstance(settings[name], float) for name in weights.values())
    assert all(isinstance(settings[name], float) for name in loop._RATES.values())


def test_a_stage_without_advice_of_its_own_is_told_to_lower_its_rate(tmp_path: Path) -> None:
    stage = Little(12, nan_loss)
    stage.name = "other"
    with pytest.raises(TrainingError) as caught:
        run(stage, tmp_path)
    assert caught.value.hint == "lower the learning rate of this stage with --set, and start into a new folder"


def test_a_full_disk_is_an_output_error_and_the_state_before_is_still_good(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run(Little(), tmp_path, stopping_after(7))
    before = (tmp_path / "finetune.state").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"finetune\.state' cannot be written: No space left on device"):
            run(Little(), tmp_path)
    assert (tmp_path / "finetune.state").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetune.state", "logs"]
    last, whole = Little(), Little()
    run(last, tmp_path)
    run(whole, tmp_path / "whole")
    assert_equal(last.state(), whole.state())
    assert [line["step"] for line in lines(tmp_path)] == list(range(12))


def test_a_log_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(OutputError, match=r"metrics\.jsonl' cannot be written"):
        Journal(tmp_path / "logs" / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    journal = Journal(tmp_path / "metrics.jsonl")
    with pytest.raises(OutputError, match=r"metrics\.jsonl' cannot be written: No space left on device"):
        journal.write({"step": 0})
    with pytest.raises(OSError, match="No space left on device"):  # the line is still buffered
        journal.close()


# --- beginning anew -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"", b'{"stage": "fine'])
def test_a_stage_whose_state_was_removed_begins_anew_and_logs_no_step_twice(
    tmp_path: Path, clock: list[float], torn: bytes
) -> None:
    for folder in ("whole", "broken"):
        with Journal(tmp_path / folder / "logs/metrics.jsonl") as journal:
            journal.write({"stage": "fine", "step": 0})
    run(Little(), tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(Stopped):
        run(Little(), broken, stopping_after(8))
    with (broken / "logs/metrics.jsonl").open("ab") as file:
        file.write(torn)
    (broken / "finetune.state").unlink()
    assert run(Little(), broken) is False
    assert (broken / "logs/metrics.jsonl").read_bytes() == (tmp_path / "whole/logs/metrics.jsonl").read_bytes()
    assert (broken / "finetune.state").read_bytes() == (tmp_path / "whole/finetune.state").read_bytes()


def test_what_followed_from_a_stage_that_begins_anew_begins_anew_too(tmp_path: Path, clock: list[float]) -> None:
    def named(name: str) -> Little:
        stage = Little()
        stage.name = name
        return stage

    def runs() -> list[bool]:
        return [run(named(name), tmp_path) for name in ("discriminator", "encoder", "prune")]

    assert runs() == [False, False, False]
    log, names = (tmp_path / "logs/metrics.jsonl").read_bytes(), ("discriminator", "encoder", "prune")
    states = {name: (tmp_path / f"{name}.state").read_bytes() for name in names}
    (tmp_path / "encoder.state").unlink()
    (tmp_path / "damaged.state").write_bytes(b"of no stage that runs here")
    assert runs() == [True, False, False]
    assert (tmp_path / "logs/metrics.jsonl").read_bytes() == log
    assert {name: (tmp_path / f"{name}.state").read_bytes() for name in names} == states


def test_whoever_asks_is_told_of_every_state_after_a_step(tmp_path: Path, clock: list[float]) -> None:
    told: list[int] = []
    with Journal(tmp_path / "logs/metrics.jsonl") as journal:
        run_stage(Little(), tmp_path, journal, seed=3, saved=lambda: told.append(saved(tmp_path)[1]["step"]))
    assert told == [5, 12]


# --- states that do not belong here ---------------------------------------------------------------------------------


def test_a_state_of_a_stage_of_another_length_is_refused(tmp_path: Path) -> None:
    run(Little(12), tmp_path)
    with pytest.raises(ArtifactError) as caught:
        run(Little(13), tmp_path)
    assert caught.value.message == (
        f"the state '{tmp_path / 'finetune.state'}' belongs to a stage of 12 steps, and this one has 13"
    )
    assert caught.value.hint == "go on with the flags that the job was started with"


@pytest.mark.parametrize(
    "wrong",
    [{"step": 13}, {"step": -1}, {"step": "3"}, {"step": True}, {"step": None}, {"journal": None}, {"steps": None}],
)
def test_a_state_with_impossible_facts_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    facts = {"step": 3, "steps": 12, "journal": 0, **wrong}
    save_state(tmp_path / "finetune.state", Little().state(), facts)
    with pytest.raises(ArtifactError, match="belongs to a stage of"):
        run(Little(), tmp_path)


@pytest.mark.parametrize("wrong", ["missing", "shape", "moments"])
def test_a_state_of_other_networks_is_refused(tmp_path: Path, wrong: str) -> None:
    stage = Little()
    stage.step(0)
    tensors = stage.state()
    if wrong == "missing":
        del tensors["net.0.weight"]
    elif wrong == "shape":
        tensors["net.0.weight"] = torch.zeros(3, 3)
    else:
        tensors["o.G.first.exp_avg"] = torch.zeros(1)
    save_state(tmp_path / "finetune.state", tensors, {"step": 3, "steps": 12, "journal": 0})
    with pytest.raises(ArtifactError) as caught:
        run(Little(), tmp_path)
    assert caught.value.message == (
        f"the state '{tmp_path / 'finetune.state'}' does not fit this stage: it is of other networks"
    )
    assert caught.value.hint == (
        "bring back the files that were changed in the run folder, or remove the state to do this stage again"
    )


def test_a_damaged_state_is_refused_before_a_step_is_done(tmp_path: Path) -> None:
    (tmp_path / "finetune.state").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="is damaged"):
        run(Little(), tmp_path)
    assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("lose", "left"),
    [
        (lambda _: b"", range(5, 12)),
        (lambda log: log[:20], range(5, 12)),  # in the middle of a line
        (lambda log: b"[]\n" + b"".join(log.splitlines(keepends=True)[4:]), range(4, 12)),  # those before the state
        (lambda log: b"".join(log.splitlines(keepends=True)[1:]), range(1, 12)),  # longer than it was with the state
    ],
)
def test_a_stage_goes_on_from_its_state_where_the_log_lost_lines_and_logs_no_step_twice(
    tmp_path: Path, clock: list[float], lose: Callable[[bytes], bytes], left: range
) -> None:
    whole = Little()
    run(whole, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(Little(), tmp_path, stopping_after(7))
    assert saved(tmp_path)[1]["step"] == 5
    path = tmp_path / "logs/metrics.jsonl"
    path.write_bytes(lose(path.read_bytes()))
    told: list[str] = []
    last = Little()
    with Journal(path) as journal:
        assert run_stage(last, tmp_path, journal, seed=3, tell=told.append) is True
    assert told == [f"note: '{path}' has lost lines that were written to it; 'finetune' goes on, and they stay lost"]
    assert [line["step"] for line in lines(tmp_path)] == list(left)
    assert_equal(last.state(), whole.state())


# --- several processes ----------------------------------------------------------------------------------------------


class Told(Processes):
    """One of two processes, without the other: it notes when it would wait for it."""

    size = 2

    def __init__(self, rank: int, barrier: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.rank, self._barrier, self.waited = rank, barrier, 0

    def barrier(self) -> None:
        self.waited += 1
        self._barrier()


def test_a_state_of_another_number_of_processes_counts_for_the_same_part_of_the_stage(tmp_path: Path) -> None:
    state = {"step": 3, "steps": 24, "journal": 0, "processes": 1}  # 24 steps of one are 12 of two
    save_state(tmp_path / "finetune.state", Little().state(), state)
    with Journal(tmp_path / "logs" / "metrics.jsonl") as journal:
        assert run_stage(Little(), tmp_path, journal, seed=3, processes=Told(0)) is True
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 12))
    assert saved(tmp_path)[1]["processes"] == 2


@pytest.mark.parametrize("facts", [{"steps": 30, "processes": 1}, {"steps": 24, "processes": 2}, {"steps": 24}])
def test_a_state_of_another_length_is_refused_whatever_the_number_of_processes(
    tmp_path: Path, facts: dict[str, int]
) -> None:
    save_state(tmp_path / "finetune.state", Little().state(), {"step": 3, "journal": 0, **facts})
    with (
        Journal(tmp_path / "logs" / "metrics.jsonl") as journal,
        pytest.raises(ArtifactError, match=f"belongs to a stage of {facts['steps']} steps, and this one has 12"),
    ):
        run_stage(Little(), tmp_path, journal, seed=3, processes=Told(0))


def test_a_follower_begins_with_the_state_of_rank_0_and_ends_with_it(tmp_path: Path) -> None:
    first, other = Little(), Little()
    with Journal(tmp_path / "logs" / "metrics.jsonl") as journal:
        run_stage(first, tmp_path, journal, seed=3)
    begun, ended = (Little().state(), {"step": 0, "steps": 12, "journal": 0, "processes": 2}), saved(tmp_path)
    written = [begun, (ended[0], {**ended[1], "processes": 2})]
    before = (tmp_path / "logs/metrics.jsonl").read_bytes()
    processes = Told(1, lambda: save_state(tmp_path / "finetune.state", *written.pop(0)))
    follow_stage(other, tmp_path, seed=3, processes=processes)
    assert processes.waited == 2
    assert_equal(other.state(), first.state())  # its own draws, of another seed, are gone
    assert (tmp_path / "logs/metrics.jsonl").read_bytes() == before


def test_a_follower_that_does_not_see_the_run_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not there for every process") as caught:
        follow_stage(Little(), tmp_path, seed=3, processes=Told(1))
    assert caught.value.hint == "put the run into a folder that all of them see"
