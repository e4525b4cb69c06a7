"""--devices and --compute: a job in two processes, of which one writes and speaks, and what ends them both."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_networks, write_unpaired

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "mggc_edge.cli")
TRAIN = (
    "train", "--recipe", "cyclegan", "--data", "unpaired", "--family", "resnet_6blocks", "--image-size", "32",
    "--ngf", "2", "--ndf", "2", "--threads", "1",
)  # fmt: skip
ENDED_S = 240  # far more than an end takes, and less than a timeout of gloo: half an hour


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """End what a test that failed has left running."""
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()


def start(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*PROGRAM, *words], cwd=folder, env=env or environment(), stdout=pipe, stderr=pipe, text=True
    )
    STARTED.append(process)
    return process


def followers(process: subprocess.Popen[str]) -> list[int]:
    """The other processes that a process started, by what Linux says of its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"mggc_edge.cli.follow" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for(process: subprocess.Popen[str], line: str) -> str:
    """Read what a process says up to a line that begins so; return all of it."""
    assert process.stderr is not None
    said = ""
    for text in process.stderr:
        said += text
        if text.startswith(line):
            return said
    raise AssertionError(said)


def has_ended(pidfd: int) -> bool:
    """Whether a process ends in time."""
    return bool(select.select([pidfd], [], [], ENDED_S)[0])


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def training(folder: Path) -> subprocess.Popen[str]:
    """A training of two processes that would take long, once it has begun."""
    write_unpaired(folder / "unpaired")
    process = start(folder, *TRAIN, "--epochs", "5000", "--devices", "2", "--out", "run")
    wait_for(process, "training")
    return process


def test_two_processes_take_half_the_steps_and_rank_0_alone_writes(tmp_path: Path) -> None:
    write_unpaired(tmp_path / "unpaired")
    before = written(tmp_path)
    process = start(tmp_path, *TRAIN, "--epochs", "2", "--devices", "2", "--out", "run", "--json")
    out, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["steps"] == 8  # of 2 pictures: 2 epochs of the 8 that the larger side trains with
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/logs/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(document["steps"]))  # each line once
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["reading", "about", "training"]
    assert {name.removeprefix("run/") for name in written(tmp_path) - before if name.startswith("run/")} == {
        "job.json", "manifest.json", "samples.png", "logs/metrics.jsonl",
        *(f"latest_net_{name}.pth" for name in ("G_A", "G_B", "D_A", "D_B")),
    }  # fmt: skip


@pytest.mark.slow
def test_an_end_of_the_other_process_ends_the_job_with_one_sentence_and_the_way_on(tmp_path: Path) -> None:
    process = training(tmp_path)
    (other,) = followers(process)
    os.kill(other, signal.SIGKILL)
    out, err = process.communicate(timeout=ENDED_S)
    assert (process.returncode, out) == (1, "")
    assert err == (
        "error: process 1 of 2, counted from 0, was ended by signal 9\nhint: go on with: mggc-edge train --resume run\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_end_of_rank_0_ends_the_other_process(tmp_path: Path, how: signal.Signals, code: int) -> None:
    process = training(tmp_path)
    (other,) = followers(process)
    pidfd = os.pidfd_open(other)
    process.send_signal(how)
    _, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == code
    kept = "error: interrupted; what was done is kept in 'run'\nhint: go on with: mggc-edge train --resume run\n"
    assert err == (kept if code == 130 else "")
    assert has_ended(pidfd)
    os.close(pidfd)


@pytest.mark.slow
def test_an_error_of_the_other_process_is_the_error_of_the_job(tmp_path: Path) -> None:
    write_unpaired(tmp_path / "unpaired")
    # Rank 0 has read what it needs when the others start: what they miss is what they alone see.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from mggc_edge.errors import PictureError\n"
        "    import mggc_edge.jobs.pictures as pictures\n"
        "    def read_folders(*_, **__):\n"
        "        raise PictureError('the pictures are not here', hint='mount them')\n"
        "    pictures.read_folders = read_folders\n"
    )
    env = environment(PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
    process = start(tmp_path, "--quiet", *TRAIN, "--epochs", "2", "--devices", "2", "--out", "run", env=env)
    out, err = process.communicate(timeout=ENDED_S)
    assert (process.returncode, out) == (1, "")
    assert err == "error: process 1 of 2, counted from 0, failed: the pictures are not here\nhint: mount them\n"


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_with_as_many_processes_or_with_one(tmp_path: Path) -> None:
    process = training(tmp_path)
    process.terminate()
    process.communicate(timeout=ENDED_S)
    for words in (("--devices", "2"), ()):
        going = start(tmp_path, "train", "--resume", "run", *words)
        wait_for(going, "training")
        going.terminate()
        assert going.communicate(timeout=ENDED_S)[1].startswith("error: interrupted")


@pytest.mark.slow
def test_compress_in_two_processes_has_its_stages_once_and_half_their_steps(tmp_path: Path) -> None:
    nets = tmp_path / "nets"
    nets.mkdir()
    write_networks(nets)
    words = ("--quiet", "compress", "--model", "nets/generator.pth", "--budget", "0.5", *QUICK, "--devices", "2")
    process = start(tmp_path, *words, "--out", "run", "--json")
    out, err = process.communicate(timeout=2 * ENDED_S)
    assert (process.returncode, err) == (0, "")
    assert 0.49 <= json.loads(out)["budget_met"] <= 0.5
    lines = [json.loads(line) for line in (tmp_path / "run/logs/metrics.jsonl").read_text().splitlines()]
    steps = {name: [line["step"] for line in lines if line["stage"] == name] for name in {v["stage"] for v in lines}}
    wanted = {"discriminator": 3, "encoder": 6, "prune": 4, "finetune": 4}  # alone: 6, 6, 8, 8
    assert steps == {name: list(range(count)) for name, count in wanted.items()}


def torchrun(folder: Path, words: Sequence[str], ranks: Sequence[Mapping[str, str]]) -> list[tuple[int, str, str]]:
    """What processes with these variables in their environment end with, all started at once."""
    running = [start(folder, *words, env=environment(**variables)) for variables in ranks]
    said = [process.communicate(timeout=ENDED_S) for process in running]
    return [(process.returncode, *texts) for process, texts in zip(running, said, strict=True)]


@pytest.mark.parametrize("by", ["torchrun", "slurm"])
@pytest.mark.slow
def test_the_processes_that_torchrun_or_slurm_started_are_used(tmp_path: Path, by: str) -> None:
    write_unpaired(tmp_path / "unpaired")
    torch_names = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29651"}
    slurm_names = {
        "SLURM_JOB_ID": "4652", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    ranks = [
        {**torch_names, "RANK": rank, "LOCAL_RANK": rank}
        if by == "torchrun"
        else {**slurm_names, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        for rank in ("0", "1")
    ]
    words = ("--quiet", *TRAIN, "--epochs", "1", "--json", "--out", "run")
    (first, out, err), other = torchrun(tmp_path, words, ranks)
    assert (first, err, other) == (0, "", (0, "", ""))
    assert json.loads(out)["steps"] == 4  # alone: 8


def test_another_number_of_processes_than_was_started_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    ran = command(*TRAIN, "--devices", "2")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: --devices 2 was asked for, and torchrun started 4 processes\n"
        "hint: give --devices 4, or leave it out: the processes that exist are used\n"
    )


def test_a_gpu_that_is_not_there_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in (TRAIN, ("compress", "--model", "x.pth", "--budget", "0.5")):
        ran = command(*words, "--compute", "cuda")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == (
            "error: --compute cuda was asked for, and torch sees no CUDA device here\n"
            "hint: give --compute cpu, or install a torch with CUDA and its driver\n"
        )


def test_without_fabric_several_processes_are_refused_with_the_install_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_unpaired(tmp_path / "unpaired")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    ran = command("--quiet", *TRAIN, "--devices", "2", "--out", "run")
    assert ran.code == 1
    assert ran.err.splitlines()[0].startswith("error: lightning_fabric cannot be imported here: ")
    assert ran.err.splitlines()[1:] == ['hint: pip install "mggc-edge[devices]"']
    assert not (tmp_path / "run").exists()  # nothing was begun
