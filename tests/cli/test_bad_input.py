"""Bad input ends in one sentence with the way out and the right exit code, and leaves finished files whole."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import SIZE, Command, Ran, random_network

PROGRAM = (sys.executable, "-m", "mggc_edge.cli")


def assert_one_sentence(ran: Ran, code: int, *parts: str) -> None:
    """Nothing on stdout, no traceback, one error line and at most one hint."""
    lines = ran.err.splitlines()
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), ran.err
    for part in parts:
        assert part in ran.err


# --- checkpoints ------------------------------------------------------------------------------------------------------


def write_text(path: Path) -> None:
    path.write_text("these are not weights\n" * 40)


def write_nothing(path: Path) -> None:
    path.touch()


def write_truncated(path: Path) -> None:
    torch.save(random_network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:40_000])


def write_picture(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, format="PNG")


def write_other_network(path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).state_dict(), path)


def write_nan(path: Path) -> None:
    state = random_network().state_dict()
    state["model.4.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)


def write_left_over(path: Path) -> None:
    torch.save({**random_network().state_dict(), "model.4.scale": torch.ones(1)}, path)


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch trapped",)


def write_trap(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap()))


def write_trap_in_zip(path: Path) -> None:
    torch.save({"state_dict": random_network().state_dict(), "opt": Trap()}, path)


BAD_CHECKPOINTS: dict[Callable[[Path], None], str] = {
    write_text: "is no checkpoint",
    write_nothing: "is empty",
    write_truncated: "is damaged",
    write_picture: "is no checkpoint",
    write_other_network: "no known network has these weights",
    write_nan: "'model.4.weight' has NaN or infinite values",
    write_left_over: "has unexpected 'model.4.scale'",
    write_trap: "refused: this is a Python pickle that torch.save did not write",
    write_trap_in_zip: "refused: loading this file would run or build 'posix.system'",
}


@pytest.mark.parametrize("verb", ["inspect", "export", "translate", "verify"])
@pytest.mark.parametrize("write", BAD_CHECKPOINTS, ids="{0.__name__}".format)
def test_bad_checkpoints(
    command: Command,
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    verb: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    write(path)
    words = {
        "inspect": (path,),
        "export": (path, "--out", tmp_path / "o"),
        "translate": (path, "--images", material / "pictures", "--out", tmp_path / "o"),
        "verify": (path, material / "run"),
    }[verb]
    assert_one_sentence(command(verb, *words), 1, BAD_CHECKPOINTS[write])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pth"]  # no output, and nothing in the file was run


def test_a_missing_file_and_a_folder_are_no_checkpoints(command: Command, tmp_path: Path) -> None:
    assert_one_sentence(command("inspect", tmp_path / "none.pth"), 1, "there is no file")
    assert_one_sentence(command("inspect", tmp_path), 1, "is a folder without manifest.json or spec.json", "hint: ")


def test_an_onnx_file_that_is_none_and_one_that_is_cut(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph in here")
    data = (material / "run/export/portable/generator.fp32.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    for name in ("text.onnx", "cut.onnx"):
        assert_one_sentence(command("inspect", tmp_path / name), 1, "is not a valid ONNX file")
        assert command("verify", material / "run", tmp_path / name).code == 1


def test_a_settings_file_that_cannot_be_read_is_bad_input_and_a_setting_in_it_is_usage(
    command: Command, material: Path, tmp_path: Path
) -> None:
    config = tmp_path / "settings.toml"
    words = ("inspect", material / "generator.pth", "--config", config)
    assert_one_sentence(command(*words), 1, f"there is no file '{config}'")
    config.write_text("[checkpoint")
    assert_one_sentence(command(*words), 1, "is not a TOML file")
    config.write_text("[checkpoint]\nmax_byte = 5")
    assert_one_sentence(command(*words), 2, "there is no setting 'checkpoint.max_byte'", "did you mean")


def test_damaged_plans_and_manifests(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"schema": "mggc-edge/plan/1"}')
    assert_one_sentence(command("inspect", tmp_path / "plan.json"), 1, "this pruning plan is damaged")
    (tmp_path / "other.json").write_text("[1, 2")
    assert_one_sentence(command("inspect", tmp_path / "other.json"), 1, "is no JSON document")
    shutil.copytree(material / "run", tmp_path / "run")
    (tmp_path / "run/manifest.json").write_text("{}")
    assert_one_sentence(
        command("translate", tmp_path / "run", "--images", material / "pictures", "--out", tmp_path / "o"), 1
    )


def test_a_discriminator_is_not_exported(command: Command, tmp_path: Path) -> None:
    from mggc_edge.models.network import Network
    from mggc_edge.models.patchgan import patchgan_spec

    torch.save(Network(patchgan_spec(ndf=4)).state_dict(), tmp_path / "d.pth")
    ran = command("--quiet", "export", tmp_path / "d.pth", "--out", tmp_path / "o")
    assert_one_sentence(ran, 1, "this is a discriminator, and only generators are exported")


# --- pictures ---------------------------------------------------------------------------------------------------------


def picture_folder(folder: Path, **pictures: Image.Image) -> Path:
    folder.mkdir()
    for name, picture in pictures.items():
        stem, _, suffix = name.rpartition("_")
        picture.save(folder / f"{stem}.{suffix}")
    return folder


def test_unusual_pictures_are_translated(command: Command, material: Path, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    folder = picture_folder(
        tmp_path / "pictures",
        one_png=Image.new("RGB", (1, 1), "red"),
        deep_png=Image.fromarray(ramp),
        grey_png=Image.new("L", (30, 30), 90),
        print_jpg=Image.new("CMYK", (30, 30)),
    )
    frames[0].save(folder / "film.webp", save_all=True, append_images=frames[1:])
    ran = command("translate", material / "run", "--images", folder, "--out", tmp_path / "o", "--json")
    assert (ran.code, ran.document["images"], ran.document["unreadable"]) == (0, 5, 0)


def test_a_truncated_picture_is_skipped_named_once_and_counted(
    command: Command, material: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(20):
        noise = Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        noise.save(folder / f"{index}.jpg")
    (folder / "7.jpg").write_bytes((folder / "7.jpg").read_bytes()[:400])
    ran = command("translate", material / "run", "--images", folder, "--out", tmp_path / "o", "--json")
    assert (ran.code, ran.document["images"], ran.document["unreadable"]) == (0, 19, 1)
    assert ran.err.count("7.jpg") == 1


def test_more_than_5_percent_unreadable_is_an_error_that_keeps_what_was_done(
    command: Command, material: Path, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", a_png=Image.new("RGB", (9, 9)), b_png=Image.new("RGB", (9, 9)))
    (folder / "c.png").write_text("no picture")
    ran = command("--quiet", "translate", material / "run", "--images", folder, "--out", tmp_path / "o")
    assert_one_sentence(ran, 1, "1 of 3")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.png", "b.png"]


def test_a_folder_without_pictures(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        ran = command("translate", material / "run", "--images", tmp_path / folder, "--out", tmp_path / "o")
        assert_one_sentence(ran, 1)


def test_names_with_spaces_and_other_alphabets(command: Command, material: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ein Ordner für 図"
    picture_folder(folder, **{"зебра №1 [x]_png": Image.new("RGB", (9, 9))})
    shutil.copy(material / "generator.pth", folder / "générateur 馬.pth")
    assert command("inspect", folder / "générateur 馬.pth", "--image-size", SIZE).code == 0
    out = tmp_path / "saída 出力"
    words = ("--images", folder, "--image-size", SIZE, "--out", out)
    ran = command("translate", folder / "générateur 馬.pth", *words, "--json")
    assert ran.code == 0
    assert ran.document["out"] == str(out)
    assert (out / "зебра №1 [x].png").is_file()
    export = command("export", folder / "générateur 馬.pth", "--image-size", SIZE, "--out", tmp_path / "[bold] run")
    assert export.code == 0
    assert "[bold] run" in export.out


# --- places -----------------------------------------------------------------------------------------------------------


def test_an_output_folder_with_other_content_is_refused_and_untouched(
    command: Command, material: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    lines = {
        "export": (material / "generator.pth",),
        "translate": (material / "run", "--images", material / "pictures"),
        "demo": (),
    }
    for verb, words in lines.items():
        ran = command(verb, *words, "--out", tmp_path / "full")
        assert_one_sentence(ran, 1, "has other content, and nothing is overwritten", "choose a new or an empty folder")
        assert_one_sentence(command(verb, *words, "--out", tmp_path / "file"), 1, "is a file, not a folder")
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"


def in_namespace(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a file-system namespace of its own, in which it may mount."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine gives no file-system namespace to mount a small disk in")
    line = ["unshare", "-rm", "sh", "-c", script, "sh", *PROGRAM, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)


def test_a_full_disk(material: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = (
        f'mount -t tmpfs -o size=96k tmpfs {tmp_path}/disk && echo whole > {tmp_path}/disk/before && "$@"; code=$?; '
    )
    script += f"find {tmp_path}/disk -type f; cat {tmp_path}/disk/before; exit $code"
    words = (material / "generator.pth", "--image-size", SIZE, "--out", tmp_path / "disk/run")
    done = in_namespace(script, "--quiet", "export", *words)
    assert done.returncode == 1, done.stderr
    assert "cannot be written: No space left on device" in done.stderr
    assert "hint: free some space, or choose a folder on another disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == [f"{tmp_path}/disk/before", "whole"]


def test_a_disk_that_fills_up_leaves_every_finished_picture_whole(material: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for index in range(40):
        picture = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"pictures/{index}.png")
    script = (
        f'mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && "$@"; code=$?; cp -r {tmp_path}/disk/o {tmp_path}/copy; '
    )
    script += "exit $code"
    words = (material / "run", "--images", tmp_path / "pictures", "--out", tmp_path / "disk/o")
    done = in_namespace(script, "--quiet", "translate", *words)
    assert (done.returncode, "No space left on device" in done.stderr) == (1, True)
    finished = sorted((tmp_path / "copy").iterdir())
    assert finished
    for path in finished:
        with Image.open(path) as result:
            assert result.size == (SIZE, SIZE)
            result.load()


def test_a_read_only_disk(material: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o ro tmpfs {tmp_path}/disk && "$@"'
    words = (material / "generator.pth", "--image-size", SIZE, "--out", tmp_path / "disk/run")
    done = in_namespace(script, "--quiet", "export", *words)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: '{tmp_path}/disk/run' cannot be written: Read-only file system",
        "hint: choose a folder that can be written",
    ]


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupt_when(
    words: list[str], ready: Callable[[], bool], cwd: Path, how: signal.Signals = signal.SIGINT
) -> tuple[int, str]:
    """Start a command, press Ctrl-C as soon as `ready`, and return its exit code and stderr."""
    process = subprocess.Popen(
        [*PROGRAM, *words], cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_ctrl_c_while_translating_keeps_the_finished_pictures(material: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for index in range(3000):
        Image.new("RGB", (SIZE, SIZE), (index % 256, 0, 0)).save(tmp_path / f"pictures/{index}.png")
    words = ["translate", str(material / "run"), "--images", "pictures", "--out", "o"]
    code, err = interrupt_when(words, (tmp_path / "o/5.png").exists, tmp_path)
    assert code == 130
    assert err.endswith("error: interrupted; files already written are complete\n")
    assert "Traceback" not in err
    finished = list((tmp_path / "o").iterdir())
    assert 5 <= len(finished) < 3000
    for path in finished:
        assert path.suffix == ".png"
        Image.open(path).load()


def test_ctrl_c_while_exporting_leaves_nothing_half_done(material: Path, tmp_path: Path) -> None:
    words = ["export", str(material / "generator.pth"), "--image-size", "64", "--out", "o"]
    code, err = interrupt_when(words, lambda: any(tmp_path.glob(".o.*.partial")), tmp_path)
    assert code == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_job_leaves_nothing_half_done(material: Path, tmp_path: Path) -> None:
    words = ["export", str(material / "generator.pth"), "--image-size", "64", "--out", "o"]
    code, _ = interrupt_when(words, lambda: any(tmp_path.glob(".o.*.partial")), tmp_path, signal.SIGTERM)
    assert (code, list(tmp_path.iterdir())) == (130, [])


def test_pipes_are_refused_and_not_waited_for(command: Command, material: Path, tmp_path: Path) -> None:
    for name in ("a.pth", "b.onnx", "c.json", "d.png"):
        os.mkfifo(tmp_path / name)
        assert_one_sentence(command("inspect", tmp_path / name), 1, "is neither a file nor a folder")
    ran = command("translate", material / "run", "--images", tmp_path, "--out", tmp_path / "o")
    assert_one_sentence(ran, 1, "no pictures in")


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("inspect",),
        ("inspekt", "x"),
        ("inspect", "x", "--frobnicate"),
        ("verify", "x"),
        ("export", "x", "--seed", "-1"),
        ("inspect", "x", "--direction", "up"),
        ("verify", "x", "y", "--bn", "both"),
        ("translate", "x", "--images", "y", "--layout", "heap"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2(command: Command, words: tuple[str, ...]) -> None:
    ran = command(*words)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: mggc-edge" in ran.err


def test_json_documents_never_hold_nan(command: Command, material: Path, tmp_path: Path) -> None:
    ran = command("verify", material / "run/slim", material / "run/slim", "--image-size", SIZE, "--json")
    assert json.loads(ran.out, parse_constant=pytest.fail)["psnr"] is None
