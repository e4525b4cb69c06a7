"""Where results go: folders that nobody named, the link to the newest run, and files that cannot be written."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from mggc_edge.cli import options
from mggc_edge.cli.options import MAX_NAME_BYTES, folder_for, job_folder
from mggc_edge.errors import OutputError
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def at_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder while the clock does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _format: "20260102-030405")


def test_runs_of_one_name_in_one_second_have_folders_of_their_own() -> None:
    assert folder_for(None, "net-0.5") == Path("runs/net-0.5-20260102-030405")
    made = [job_folder(None, "net-0.5") for _ in range(3)]
    assert made == [(Path(f"runs/net-0.5-20260102-030405{end}"), True) for end in ("", "-2", "-3")]
    assert all(folder.is_dir() for folder, _ in made)
    Path("runs/net-0.5-20260102-030405-4").symlink_to("nowhere")
    assert folder_for(None, "net-0.5").name == "net-0.5-20260102-030405-5"
    assert folder_for(None, "other").name == "other-20260102-030405"


def test_a_job_that_is_faster_by_a_moment_keeps_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("runs/net").mkdir(parents=True)
    offered = itertools.chain([Path("runs/net")], itertools.repeat(Path("runs/net-2")))
    monkeypatch.setattr(options, "folder_for", lambda _given, _name: next(offered))
    assert job_folder(None, "net") == (Path("runs/net-2"), True)


def test_a_folder_that_was_named_is_taken_as_it_is() -> None:
    assert folder_for(Path("mine"), "net") == Path("mine")
    assert job_folder(Path("mine"), "net") == (Path("mine"), False)
    assert not Path("mine").exists()


def test_runs_that_is_a_file_is_named() -> None:
    Path("runs").write_text("mine")
    with pytest.raises(OutputError) as caught:
        job_folder(None, "net")
    assert caught.value.message == "'runs' is a file, not a folder"


@pytest.mark.parametrize("stem", ["g" * 240, "网" * 80])
def test_a_long_name_is_cut_to_what_a_file_system_holds(stem: str) -> None:
    name = folder_for(None, stem).name
    assert name == stem[: MAX_NAME_BYTES // len(stem[0].encode())] + "-20260102-030405"


def test_a_checkpoint_with_a_long_name_gets_as_far_as_one_with_a_short_name(
    command: Command, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path("g" * 240 + ".pth")
    os.link(material / "generator.pth", model)
    asked: list[str] = []

    def spy(given: Path | None, name: str) -> tuple[Path, bool]:
        asked.append(name)
        return job_folder(given, name)

    monkeypatch.setattr("mggc_edge.cli.compress.job_folder", spy)
    ran = command("--quiet", "compress", "--model", model, "--budget", "0.001", "--image-size", 32)
    assert (ran.code, asked) == (1, ["g" * 80 + "-0.001"])
    assert ran.err.startswith("error: a budget of 0.001 cannot be met")
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize("out", ["runs/latest", "./runs/../runs/latest", "{}/runs/latest"])
@pytest.mark.parametrize("words", [("compress", "--budget", "0.5", "--model"), ("export",)])
def test_the_place_of_the_link_to_the_newest_run_is_not_taken(
    command: Command, material: Path, tmp_path: Path, words: tuple[str, ...], out: str
) -> None:
    out = out.format(tmp_path)
    ran = command("--quiet", *words, material / "generator.pth", "--out", out)
    assert (ran.code, ran.out) == (1, "")
    assert " ".join(ran.err.split()) == (
        f"error: '{Path(out)}' is kept for the link to the newest run hint: name another folder, or leave --out away; "
        "--resume goes on with the newest run"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_training_does_not_take_the_place_of_the_link_either(command: Command, tmp_path: Path) -> None:
    ran = command("--quiet", "train", "--recipe", "pix2pix", "--data", "pairs", "--out", "runs/latest")
    assert (ran.code, "is kept for the link to the newest run" in ran.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("folder", "'{}/folder' is a folder, not a file"),
        ("file/o.json", "'{}/file/o.json' cannot be written: Not a directory"),
        ("/proc/o.json", "'/proc/o.json' cannot be written: No such file or directory"),
        ("n" * 300, "'" + "n" * 300 + "' cannot be written: File name too long"),
    ],
)
def test_a_document_that_cannot_be_written_is_refused_before_the_work(
    command: Command, material: Path, tmp_path: Path, output: str, reason: str
) -> None:
    Path("folder").mkdir()
    Path("file").write_text("mine")
    ran = command("--quiet", "compress", "--model", material / "generator.pth", "--budget", "0.5", "--output", output)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == f"error: {reason.format(tmp_path)}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_document_goes_below_folders_that_are_not_there_yet(command: Command, material: Path) -> None:
    assert command("inspect", material / "generator.pth", "--output", "new/deep/o.json").code == 0
    assert [path.name for path in Path("new/deep").iterdir()] == ["o.json"]


def test_a_result_is_shown_where_its_document_cannot_be_written(command: Command, material: Path) -> None:
    shown = command("inspect", material / "generator.pth")
    full = command("inspect", material / "generator.pth", "--output", "/dev/full")
    assert (full.code, full.out) == (1, shown.out)
    assert full.err.startswith("error: '/dev/full' cannot be written: No space left on device\n")
