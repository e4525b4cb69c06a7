"""The longer tier runs by itself: once a week, by hand, with the Python of old boards beside the main one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
SLOW = (
    "test_the_recording_is_what_the_bindings_have_and_our_code_says_no_driver_with_them",
    "test_the_recording_is_what_cuda_python_has",
    "test_the_script_runs_under_python_3_8",
)
FILES = ("tests/backends/test_trt_contract.py", "tests/compiler/test_tensorrt_bundle.py")


def block(text: str, name: str, deep: int) -> str:
    """What stands below a key that is indented so deep, without comments."""
    found = re.search(rf"^{' ' * deep}{name}:\n((?:{' ' * (deep + 1)} *\S.*\n)*)", text, flags=re.MULTILINE)
    assert found is not None, name
    return re.sub(r" *(^| )# .*", "", found[1], flags=re.MULTILINE)


def collected(*words: str) -> set[str]:
    """The tests of FILES that pytest finds when it is called so."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--collect-only", "-p", "no:cacheprovider", *FILES],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return set(re.findall(r"^tests/\S+::(\w+)", done.stdout, flags=re.MULTILINE))


def test_the_workflow_starts_every_week_and_by_hand() -> None:
    events = block(WORKFLOW, "on", 0)
    assert re.findall(r"^  (\w+):", events, flags=re.MULTILINE) == [
        "push", "pull_request", "schedule", "workflow_dispatch",
    ]  # fmt: skip
    (cron,) = re.findall(r'cron: "(.*)"', events)
    minute, hour, *date, weekday = cron.split()
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, date, 0 <= int(weekday) < 7) == (True, True, ["*", "*"], True)


def test_the_longer_tier_has_a_job_that_no_push_starts() -> None:
    job = block(WORKFLOW, "slow", 2)
    (when,) = re.findall(r"^    if: (.*)", job, flags=re.MULTILINE)
    assert when == "github.event_name == 'schedule' || github.event_name == 'workflow_dispatch'"
    assert re.findall(r"run: (make .*)", job) == ["make test-slow"]
    assert "if:" not in "".join(block(WORKFLOW, name, 2) for name in ("test", "base", "boards"))


def test_the_longer_tier_has_python_3_8_beside_the_main_one() -> None:
    (versions,) = re.findall(r"python-version: \|\n((?: {12}\S+\n)+)", block(WORKFLOW, "slow", 2))
    old, main = versions.split()  # the last one is what `python` is
    assert (old, main) == ("3.8", "3.12")
    assert f'"{main}"' in block(WORKFLOW, "test", 2)


def test_make_test_slow_runs_what_the_default_tier_leaves_out() -> None:
    (line,) = re.findall(
        r"^test-slow:.*\n\t\$\(BIN\)/python -m pytest (.*)\n", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    words = shlex.split(line)
    assert words == ["-q", "-m", "not boards"]
    everything, default = collected(*words), collected("-q")
    assert set(SLOW) <= everything
    assert default == everything - set(SLOW)
