"""The program around the commands: global flags, exit codes, streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mggc_edge import __version__
from mggc_edge.cli import commands
from mggc_edge.cli import main as program
from tests.cli.conftest import Command

PROGRAM = (sys.executable, "-m", "mggc_edge.cli")


def test_help_loads_no_heavy_library() -> None:
    code = "import sys; from mggc_edge.cli.main import run; run(['--help']); print(sorted(HEAVY & set(sys.modules)))"
    heavy = "HEAVY = {'numpy', 'torch', 'onnx', 'onnxruntime', 'tensorrt', 'PIL', 'onnxscript', 'onnxsim'}; "
    done = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", commands.SUMMARIES)
def test_what_the_list_says_of_a_command_is_the_first_line_of_its_docstring(name: str) -> None:
    assert (commands.load(name).__doc__ or "").splitlines()[0] == commands.SUMMARIES[name]


def test_a_command_line_loads_no_other_command_than_its_own() -> None:
    code = (
        "import sys; from mggc_edge.cli.main import run; code = run(['--quiet', 'settings', '--help']); "
        "names = sorted(n for n in __import__('mggc_edge.cli.commands').cli.commands.SUMMARIES "
        "if f'mggc_edge.cli.{n}' in sys.modules); print(code, names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 ['settings']"


def test_a_shell_gets_completions_of_the_flags_of_a_command() -> None:
    asked = {"_MGGC_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": "mggc-edge compress --bud", "COMP_CWORD": "2"}
    entry = [sys.executable, "-c", "from mggc_edge.cli.__main__ import main; main()"]
    done = subprocess.run(entry, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("--budget", "")


def test_a_line_of_two_dashes_alone_misses_its_command(command: Command) -> None:
    ran = command("--")
    assert ran.code == 2
    assert "Missing command." in ran.err


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


def shell(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which "$@" is the program with these words."""
    line = ["sh", "-c", script, "sh", *PROGRAM, *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_a_full_disk_behind_stdout_is_said_in_a_sentence(material: Path) -> None:
    for flags in ((), ("--json",)):
        done = shell('"$@" > /dev/full', "inspect", str(material / "generator.pth"), *flags)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "error: the result cannot be written: No space left on device",
            "hint: stdout goes to a full or closed file",
        ]


def test_a_closed_stdout_is_no_bug(material: Path) -> None:
    assert shell('"$@" 1>&-', "inspect", str(material / "generator.pth")).returncode == 0


def test_a_terminal_without_unicode_shows_the_table(material: Path) -> None:
    done = shell('"$@"', "inspect", str(material / "generator.pth"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "prunable channels" in done.stdout


def test_the_document_goes_through_links_and_into_devices_and_replaces_neither(material: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("there.json")
    os.mkfifo(tmp_path / "pipe")
    inspect = ("inspect", str(material / "generator.pth"), "--output")
    assert shell('"$@"', *inspect, str(tmp_path / "link.json")).returncode == 0
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there.json").is_file()
    done = shell(f'cat {tmp_path}/pipe & "$@" > /dev/null; wait', *inspect, str(tmp_path / "pipe"))
    assert done.stdout == (tmp_path / "there.json").read_text()
    assert (tmp_path / "pipe").is_fifo()
    refused = shell('"$@"', *inspect, str(tmp_path))
    assert (refused.returncode, "is a folder, not a file" in refused.stderr) == (1, True)


def test_without_a_terminal_long_paths_are_not_folded(material: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("a-very-long-name-" * 6)
    folder.mkdir()
    (folder / "generator.pth").write_bytes((material / "generator.pth").read_bytes())
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    line = [*PROGRAM, "inspect", str(folder / "generator.pth")]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    assert str(folder.name) in done.stdout
    assert not any(row.endswith(" ") for row in done.stdout.splitlines())


def test_help_is_without_colours_on_request() -> None:
    done = shell('"$@"', "--no-color", "inspect", "--help", TERM="xterm-256color", FORCE_COLOR="1")
    assert "Usage:" in done.stdout
    assert "\x1b[3" not in done.stdout


def test_an_interrupt_while_the_commands_are_loaded_ends_in_a_sentence_and_exit_code_130(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    entry = [sys.executable, "-c", "from mggc_edge.cli.__main__ import main; main()"]  # as the installed program
    for line in ([*PROGRAM], entry):
        done = subprocess.run([*line, "doctor"], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr == "error: interrupted; files already written are complete\n"
