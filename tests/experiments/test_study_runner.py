from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mggc_edge.benchmarks.experiments.study.__main__ import commit
from mggc_edge.benchmarks.experiments.study.record import append_record, read_records
from mggc_edge.benchmarks.experiments.study.runner import COMPRESS
from mggc_edge.benchmarks.experiments.study.table import read_study
from mggc_edge.errors import ArtifactError, InputError
from tests.experiments.study_helpers import calls, fake_runner, write_study

ROOT = Path(__file__).parent.parent.parent
ALL = [("ours", 0), ("theirs", 0), ("ours", 1), ("theirs", 1)]


def recorded(folder: Path) -> list[tuple[str, int]]:
    return [(record["row"], record["seed"]) for record in read_records(folder / "a-study.jsonl")]


def order(folder: Path, **orders: str) -> None:
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs/orders").write_text(json.dumps({name.replace("_", "-"): what for name, what in orders.items()}))


def test_a_study_runs_every_row_of_a_seed_before_the_next_seed_and_leaves_no_folder(tmp_path: Path) -> None:
    fake_runner(tmp_path).go()
    assert recorded(tmp_path) == ALL
    assert calls(tmp_path) == ["ours-0 begun", "theirs-0 begun", "ours-1 begun", "theirs-1 begun"]
    assert sorted(path.name for path in (tmp_path / "runs/a-study").iterdir()) == [".lock"]


def test_a_record_names_the_flags_and_no_place_on_this_machine(tmp_path: Path) -> None:
    fake_runner(tmp_path, keep=True).go(["theirs-1"])
    (record,) = read_records(tmp_path / "a-study.jsonl")
    flags = ["--model", "$DATA/g.pth", "--budget", "0.05", "--method", "magnitude", "--seed", "1"]
    assert (record["study"], record["row"], record["seed"], record["flags"]) == ("a-study", "theirs", 1, flags)
    assert record["where"] == "$DATA/x"
    given = json.loads((tmp_path / "runs/a-study/theirs-1/result.json").read_text())["flags"]
    data = tmp_path / "runs/data"
    assert given[:6] == ["--model", f"{data}/g.pth", "--budget", "0.05", "--method", "magnitude"]
    assert given[6:] == ["--seed", "1", "--out", str(tmp_path / "runs/a-study/theirs-1")]


def test_a_study_that_is_finished_does_nothing_more(tmp_path: Path) -> None:
    fake_runner(tmp_path).go()
    before = (tmp_path / "a-study.jsonl").read_bytes()
    fake_runner(tmp_path).go()
    assert (tmp_path / "a-study.jsonl").read_bytes() == before
    assert len(calls(tmp_path)) == 4


def test_a_study_whose_runner_was_killed_goes_on_with_the_run_and_doubles_no_line(tmp_path: Path) -> None:
    order(tmp_path, theirs_0="die", ours_1="die")
    line = [sys.executable, "-m", "tests.experiments.study_helpers", str(tmp_path)]
    for _ in range(2):
        # The pretended run holds the lock and this pipe: when it is closed, both processes are gone.
        killed = subprocess.run(line, cwd=ROOT, stderr=subprocess.PIPE, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert recorded(tmp_path) == ALL[:2]
    fake_runner(tmp_path).go()
    assert recorded(tmp_path) == ALL
    assert calls(tmp_path) == [
        "ours-0 begun", "theirs-0 begun", "theirs-0 resumed", "ours-1 begun", "ours-1 resumed", "theirs-1 begun",
    ]  # fmt: skip


def test_a_run_that_fails_is_left_out_and_tried_again_the_next_time(tmp_path: Path) -> None:
    order(tmp_path, ours_0="fail")
    runner, told = fake_runner(tmp_path), list[str]()
    runner.tell = told.append
    runner.go()
    assert runner.failed == ["ours-0"]
    assert "ours-0 ended with exit code 1; it is left out, and tried again the next time" in told
    assert recorded(tmp_path) == ALL[1:]
    fake_runner(tmp_path).go()
    assert recorded(tmp_path) == [*ALL[1:], ALL[0]]


def test_an_interrupted_run_stops_the_study(tmp_path: Path) -> None:
    order(tmp_path, theirs_0="interrupt")
    with pytest.raises(KeyboardInterrupt):
        fake_runner(tmp_path).go()
    assert recorded(tmp_path) == ALL[:1]


def test_a_run_that_was_killed_before_it_was_a_job_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "runs/a-study/ours-0/work").mkdir(parents=True)
    fake_runner(tmp_path).go(["ours-0"])
    assert calls(tmp_path) == ["ours-0 begun"]


def test_a_folder_with_something_else_in_the_place_of_a_run_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "runs/a-study/ours-0").mkdir(parents=True)
    (tmp_path / "runs/a-study/ours-0/diary.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="ours-0' holds something else than a run"):
        fake_runner(tmp_path).go()
    assert (tmp_path / "runs/a-study/ours-0/diary.txt").read_text() == "mine"


def test_two_runners_never_work_on_one_study(tmp_path: Path) -> None:
    second = fake_runner(tmp_path)
    first = fake_runner(tmp_path)
    refused = []

    def again(_: object) -> None:
        with pytest.raises(ArtifactError, match="another runner, or a run that it started, works on the study a-study"):
            second.go()
        refused.append(1)

    first.after = again
    first.go(["ours"])
    assert len(refused) == 2


def test_only_takes_rows_and_runs_and_refuses_other_names(tmp_path: Path) -> None:
    runner = fake_runner(tmp_path)
    assert [run.name for run in runner.chosen(["theirs", "ours-1"])] == ["theirs-0", "ours-1", "theirs-1"]
    with pytest.raises(InputError, match="the study a-study has no row or run 'hers'"):
        runner.go(["hers"])


def test_the_status_says_what_is_done_and_how_long_the_rest_takes(tmp_path: Path) -> None:
    runner = fake_runner(tmp_path)
    assert runner.seconds_left(runner.study.runs) is None
    runner.go(["ours-0"])
    (tmp_path / "runs/a-study/theirs-0").mkdir()
    (tmp_path / "runs/a-study/theirs-0/job.json").write_text("{}")
    status = [(run.name, state, took) for run, state, took in runner.status()]
    assert status == [
        ("ours-0", "done", 120.0), ("theirs-0", "started", None), ("ours-1", "open", None), ("theirs-1", "open", None),
    ]  # fmt: skip
    assert runner.seconds_left(runner.study.runs) == 360.0


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, {"row": "a", "seed": 0})
    with path.open("ab") as file:
        file.write(b'{"row":"b","se')
    assert read_records(path) == [{"row": "a", "seed": 0}]
    append_record(path, {"row": "b", "seed": 0})
    assert path.read_bytes() == b'{"row":"a","seed":0}\n{"row":"b","seed":0}\n'


def test_a_run_is_never_recorded_twice(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, {"row": "a", "seed": 0})
    with pytest.raises(ArtifactError, match="holds the run a-0 already"):
        append_record(path, {"row": "a", "seed": 0})
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ArtifactError, match="holds the run a-0 twice"):
        read_records(path)


@pytest.mark.parametrize("line", [b"[1]", b"{", b'{"row":"a"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'{"row":"a","seed":0}\n' + line + b"\n")
    with pytest.raises(ArtifactError, match="is damaged: line 2 is no finished run"):
        read_records(tmp_path / "r.jsonl")


def test_results_of_other_flags_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    fake_runner(tmp_path).go(["ours-0"])
    path = write_study(tmp_path)
    changed = read_study(write_study(tmp_path, path.read_text().replace("0.05", "0.1")))
    with pytest.raises(InputError, match="the run ours-0, which was made with other flags than the study has now"):
        fake_runner(tmp_path, changed).go()
    renamed = read_study(write_study(tmp_path, path.read_text().replace('"ours"', '"mine"')))
    with pytest.raises(InputError, match="the run ours-0, which is not in the study"):
        fake_runner(tmp_path, renamed).go()


def test_the_real_runs_are_of_the_command_compress() -> None:
    assert (sys.executable, "-m", "mggc_edge.cli", "compress") == COMPRESS


def test_the_command_line_names_an_error_in_one_line() -> None:
    line = [sys.executable, "-m", "mggc_edge.benchmarks.experiments.study", "e9", "--status"]
    failed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "error: there is no study 'e9' (a TOML file, or one of e1a-adversarial, e1a-facades-0.05, "
    )
    assert failed.stderr.count("\n") == 1


def test_a_commit_holds_the_results_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    for name in ("a.jsonl", "a.md", "other"):
        (tmp_path / name).write_text(name)
    git("add", "other")
    commit([tmp_path / "a.jsonl", tmp_path / "a.md"], "Study a: ours, seed 0")
    assert git("show", "--format=%s", "--name-only").split("\n") == ["Study a: ours, seed 0", "", "a.jsonl", "a.md", ""]
