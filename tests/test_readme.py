"""The README is run: every console block gives what it shows, and the Python block works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mggc_edge.cli.commands import SUMMARIES
from mggc_edge.cli.main import program_with, run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)


def steady(text: str) -> str:
    """Return output without what differs between machines and versions: sizes, rounding differences, times."""
    text = re.sub(r"[\d.]+ (?:MB|kB)\b", "SIZE", text)
    text = re.sub(r"\d\.\d+e-\d+", "TINY", text)
    text = re.sub(r"\d+\.\d\d dB", "PSNR", text)
    text = re.sub(r"It took \d+ s", "It took TIME", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip().splitlines())


# A demo in seconds: its generator has the same layers, and learns nothing.
TINY = {
    "demo.train_epochs": 0.05, "demo.prune_epochs": 0.05, "demo.finetune_epochs": 0.05, "demo.pictures": 24,
    "demo.test_pictures": 4, "quick.encoder_steps": 2, "quick.bench_pairs": 2, "bench.processes": 1,
    "finetune.recalibration_batches": 2,
}  # fmt: skip


def test_console_blocks_give_what_they_show_and_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert len(CONSOLE) == 3
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    assert run(["demo", "--out", "demo", "--quiet", *sets]) == 3  # the original did not learn the task
    capsys.readouterr()
    for block in CONSOLE:
        prompt, _, shown = block.partition("\n")
        program, *words = shlex.split(prompt.removeprefix("$ "))
        assert program == "mggc-edge"
        assert run(words) == 0
        assert steady(capsys.readouterr().out) == steady(shown)
    (python,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(python, "README.md", "exec"), {})
    assert 0 < float(capsys.readouterr().out) <= 1e-4


def test_every_command_is_listed_and_nothing_else() -> None:
    listed = set(re.findall(r"^\| `(\w+)", README, flags=re.MULTILINE))
    assert listed == set(SUMMARIES)


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]+", README))))
def test_every_flag_that_is_named_exists(flag: str) -> None:
    from typer.main import get_command

    commands = getattr(get_command(program_with()), "commands")  # noqa: B009
    known = {name for command in commands.values() for parameter in command.params for name in parameter.opts}
    known |= {"--quiet", "--no-color", "--index-url"}
    assert flag in known
