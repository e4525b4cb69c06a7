"""The program around the commands: global flags, exit codes, streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mggc_edge import __version__
from mggc_edge.cli import main as program
from tests.cli.conftest import Command

PROGRAM = (sys.executable, "-m", "mggc_edge.cli")


def test_help_loads_no_heavy_library() -> None:
    code = "import sys; from mggc_edge.cli.main import run; run(['--help']); print(sorted(HEAVY & set(sys.modules)))"
    heavy = "HEAVY = {'numpy', 'torch', 'onnx', 'onnxruntime', 'tensorrt', 'PIL', 'onnxscript', 'onnxsim'}; "
    done = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(command: Command) -> None:
    ran = command("--version")
    assert (ran.code, ran.out) == (0, f"mggc-edge {__version__}\n")


@pytest.mark.parametrize("verb", ["inspect", "export", "verify", "translate", "settings", "doctor", "demo"])
def test_every_command_has_help_that_fits_80_columns(command: Command, verb: str) -> None:
    ran = command(verb, "--help")
    assert ran.code == 0
    assert f"Usage: mggc-edge {verb}" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_quiet_works_anywhere_and_silences_remarks_only(command: Command, material: Path, tmp_path: Path) -> None:
    first = command("--quiet", "export", material / "generator.pth", "--image-size", 32, "--out", tmp_path / "a")
    last = command("export", material / "generator.pth", "--image-size", 32, "--out", tmp_path / "b", "--quiet")
    loud = command("export", material / "generator.pth", "--image-size", 32, "--out", tmp_path / "c")
    assert (first.err, last.err) == ("", "")
    assert loud.err == "exporting the generator and proving it equal\n"
    assert "generator.fp32.onnx" in last.out


def test_colours_go_with_no_color_and_the_flag(material: Path) -> None:
    base = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    terminal = {**base, "TERM": "xterm-256color", "FORCE_COLOR": "1"}

    def shown(*flags: str, **environment: str) -> str:
        line = [*PROGRAM, "inspect", str(material / "generator.pth"), *flags]
        done = subprocess.run(line, env={**terminal, **environment}, capture_output=True, text=True, check=True)
        return done.stdout

    assert "\x1b[36" in shown()
    assert "\x1b[36" not in shown("--no-color")
    assert "\x1b[36" not in shown(NO_COLOR="1")


def test_a_reader_that_goes_away_is_no_bug(material: Path) -> None:
    line = " ".join([*PROGRAM, "inspect", str(material / "generator.pth"), "--json"])
    done = subprocess.run(["sh", "-c", f"{line} | head -c 10"], capture_output=True, text=True, check=True)
    assert len(done.stdout) == 10
    assert done.stderr == ""


def test_a_bug_ends_in_a_traceback_and_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_words: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(program, "run", broken)
    with pytest.raises(SystemExit) as caught:
        program.main()
    err = capsys.readouterr().err
    assert caught.value.code == 70
    assert "ZeroDivisionError: a bug" in err
    assert err.endswith("Please report it with the lines above and `mggc-edge doctor`.\n")


def test_what_is_missing_is_explained_with_its_install_line(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = command("translate", material / "run", "--images", material / "pictures", "--out", tmp_path / "o")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == 'hint: pip install "mggc-edge[ort]"'
