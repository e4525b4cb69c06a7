"""What a job trains on follows from its flags, what torch sees, and what started the process."""

from __future__ import annotations

import re
import sys
import threading

import pytest
import torch

from mggc_edge.errors import InputError, MggcEdgeError, TrainingError
from mggc_edge.jobs import launch
from mggc_edge.jobs.devices import Devices, Launched, choose_devices, find_launched, on
from mggc_edge.jobs.launch import _Children, _failure, error_line
from mggc_edge.training.precision import choose_precision, convolution_precision
from tests.training.training_helpers import fresh, trained

TORCHRUN = {"WORLD_SIZE": "6", "RANK": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2"
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, *, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)


def test_a_process_knows_its_place_from_torchrun_or_slurm() -> None:
    assert find_launched(TORCHRUN) == Launched("torchrun", 4, 6, 1, 3)
    assert find_launched(SLURM) == Launched("SLURM", 4, 6, 1, 3)
    assert find_launched({"WORLD_SIZE": "2", "RANK": "1"}) == Launched("torchrun", 1, 2, 1, 2)


def test_one_process_is_alone_whatever_started_it() -> None:
    assert find_launched({}) is None
    assert find_launched({"WORLD_SIZE": "1"}) is None
    assert find_launched({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert find_launched({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None  # a batch script, not a step of srun


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"WORLD_SIZE": "4"},
            "WORLD_SIZE says that there are 4 processes, and RANK does not say which of them this is",
        ),
        ({"WORLD_SIZE": "x"}, "the environment has WORLD_SIZE='x', which must be a number of at least 1"),
        ({"WORLD_SIZE": "0"}, "the environment has WORLD_SIZE='0', which must be a number of at least 1"),
        ({**TORCHRUN, "RANK": "6"}, "the environment has RANK='6', which must be a number of at least 0 below 6"),
        ({**TORCHRUN, "LOCAL_RANK": "3"}, "LOCAL_RANK='3', which must be a number of at least 0 below 3"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, "torchrun started 6 processes, and not equally many on every machine"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_launched(variables)


def test_auto_is_the_gpu_where_torch_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose_devices() == Devices("cpu", 1)
    assert choose_devices("auto", 3) == Devices("cpu", 3)
    gpus(monkeypatch, 2)
    assert (choose_devices().kind, choose_devices().device) == ("cuda", torch.device("cuda", 0))
    assert choose_devices("cpu", 4) == Devices("cpu", 4)
    assert choose_devices("cuda", 2).on_this_machine == 2


def test_every_process_has_the_gpu_of_its_number_on_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 3)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = choose_devices()
    assert (found.count, found.rank, found.device) == (6, 4, torch.device("cuda", 1))


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(InputError, match="3 processes need a GPU each, and torch sees 2 here") as caught:
        choose_devices("auto", 3)
    assert caught.value.hint == "give --devices 2, or --compute cpu"


def test_a_gpu_trains_in_bfloat16_only_where_it_has_it_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    from mggc_edge.models.unet import unet_spec

    gpu, network = torch.device("cuda", 0), fresh(unet_spec(halvings=4, ngf=2), seed=0)
    gpus(monkeypatch, 1)
    assert [choose_precision(name, network, gpu) for name in ("auto", "bf16", "fp32")] == ["bf16", "bf16", "fp32"]
    gpus(monkeypatch, 1, bf16=False)
    assert [convolution_precision(name, gpu) for name in ("auto", "bf16", "fp32")] == ["fp32"] * 3


def test_a_network_that_is_where_it_shall_be_is_not_copied() -> None:
    from mggc_edge.models.resnet import resnet_spec

    network = trained(resnet_spec(blocks=1, ngf=2), seed=0)
    assert on(torch.device("cpu"), network) is network
    elsewhere = on(torch.device("meta"), network)
    assert {value.device.type for value in elsewhere.parameters()} == {"meta"}
    assert {value.device.type for value in network.parameters()} == {"cpu"}


def test_what_another_process_failed_with_is_said_in_one_sentence() -> None:
    said = f"a warning\n{error_line(InputError('no pictures', hint='mount them'))}\n"
    error = _failure(1, 2, 1, said)
    assert (error.message, error.hint) == ("process 1 of 2, counted from 0, failed: no pictures", "mount them")
    bug = _failure(2, 4, 70, "Traceback ...\nValueError: odd\n\n")
    assert bug.message == "process 2 of 4, counted from 0, ended with exit code 70: ValueError: odd"
    assert _failure(1, 2, -9, "").message == "process 1 of 2, counted from 0, was ended by signal 9"


def following(code: str) -> Devices:
    """Two processes, of which the other one runs this code."""
    return Devices("cpu", 2, None, (sys.executable, "-c", code))


def test_a_process_that_cannot_be_met_is_an_error_at_once_and_none_is_left() -> None:
    children = _Children(following("raise SystemExit(3)"), lambda _: None)
    with pytest.raises(TrainingError, match=r"^process 1 of 2, counted from 0, ended with exit code 3$"), children:
        pytest.fail("it was met")
    assert [child.returncode for child in children._running] == [3]


def test_where_rank_0_does_not_notice_a_failure_it_is_told_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 0.0)
    told: list[MggcEdgeError] = []
    done = threading.Event()

    def lost(error: MggcEdgeError) -> None:
        told.append(error)
        done.set()

    with _Children(following("print('ready', flush=True); raise SystemExit('no memory')"), lost):
        assert done.wait(120)
    assert [error.message for error in told] == ["process 1 of 2, counted from 0, ended with exit code 1: no memory"]


def test_what_is_left_when_rank_0_ends_is_ended() -> None:
    children = _Children(following("import sys; print('ready', flush=True); sys.stdin.read()"), lambda _: None)
    with pytest.raises(KeyboardInterrupt), children:
        raise KeyboardInterrupt
    assert [child.returncode for child in children._running] == [-9]
