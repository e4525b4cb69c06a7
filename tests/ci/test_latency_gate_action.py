"""The composite action: what its script gives to the program, what comes out, and that no input is part of a script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
ACTION = ROOT / ".github/actions/latency-gate"
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))
HOSTILE = "a b'\"$(touch hacked)`touch hacked`;touch hacked\\ *"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def gate(
    folder: Path, *, code: int = 0, verdict: str | None = "pass", **inputs: str
) -> tuple[int, list[str], str, str]:
    """Run the script with a program that notes its arguments; return exit code, arguments, outputs and stdout."""
    program = folder / "program"
    program.write_text(
        "#!/usr/bin/env python3\nimport json, pathlib, sys\n"
        "pathlib.Path('seen.json').write_text(json.dumps(sys.argv[1:]))\n"
        "out = next(word.split('=', 1)[1] for word in sys.argv if word.startswith('--output='))\n"
        f"pathlib.Path(out).write_text(json.dumps({{'gate': {{'verdict': {verdict!r}}}}}))\n"
        f"sys.exit({code})\n"
    )
    program.chmod(0o755)
    outputs = folder / "outputs"
    ran = subprocess.run(
        ["bash", str(ACTION / "gate.sh")],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "GATE_COMMAND": str(program), "GITHUB_OUTPUT": str(outputs), **inputs},
        capture_output=True,
        text=True,
        check=False,
    )
    seen = folder / "seen.json"
    arguments = json.loads(seen.read_text()) if seen.exists() else []
    return ran.returncode, arguments, outputs.read_text() if outputs.exists() else "", ran.stdout


def test_every_input_is_one_argument(tmp_path: Path) -> None:
    code, arguments, outputs, _ = gate(
        tmp_path,
        GATE_BASELINE="base dir/run",
        GATE_MODELS="a.onnx\nb c.onnx\r\n\n",
        GATE_MAX_REGRESSION="5%",
        GATE_INCONCLUSIVE="warn",
        GATE_MAX_MACS_INCREASE="0%",
        GATE_MAX_SIZE_INCREASE="",
        GATE_ARGUMENTS="--runtime\nonnxruntime",
    )
    assert code == 0
    assert arguments == [
        "bench", "--baseline=base dir/run", "--max-regression=5%", "--inconclusive=warn", "--max-macs-increase=0%",
        "--output=latency-gate.json", "--runtime", "onnxruntime", "--format=github", "--", "a.onnx", "b c.onnx",
    ]  # fmt: skip
    assert outputs == "verdict=pass\nexit-code=0\n"


def test_hostile_inputs_are_passed_on_as_they_are(tmp_path: Path) -> None:
    names = ("BASELINE", "MODELS", "MAX_REGRESSION", "THREADS", "PAIRS", "ARGUMENTS")
    hostile: dict[str, Any] = {f"GATE_{name}": HOSTILE for name in names}
    _, arguments, _, _ = gate(tmp_path, **hostile)
    assert arguments.count(HOSTILE) == 2  # a model, and a further argument
    assert f"--baseline={HOSTILE}" in arguments
    assert f"--threads={HOSTILE}" in arguments
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("code", "verdict", "said"),
    [
        (0, "pass", "pass"),
        (0, "inconclusive", "inconclusive"),
        (0, None, "none"),
        (3, "fail", "fail"),
        (4, "inconclusive", "inconclusive"),
        (1, None, "error"),
        (70, None, "error"),
    ],
)
def test_the_outputs_are_the_verdict_and_the_exit_code(
    tmp_path: Path, code: int, verdict: str | None, said: str
) -> None:
    ended, _, outputs, _ = gate(tmp_path, code=code, verdict=verdict, GATE_BASELINE="b", GATE_MODELS="m")
    assert ended == code
    assert outputs == f"verdict={said}\nexit-code={code}\n"


def test_without_models_or_baseline_nothing_is_run(tmp_path: Path) -> None:
    code, arguments, _, out = gate(tmp_path, GATE_BASELINE="b", GATE_MODELS="\n \n".replace(" ", ""))
    assert (code, arguments) == (2, [])
    assert out == "::error title=latency gate::no models were given\n"
    assert gate(tmp_path, GATE_MODELS="m")[:2] == (1, [])


def test_every_input_of_the_action_reaches_its_script() -> None:
    action, script = (ACTION / "action.yml").read_text(), (ACTION / "gate.sh").read_text()
    inputs = re.findall(r"^  ([a-z-]+):\n    description", action.split("outputs:")[0], flags=re.MULTILINE)
    assert len(inputs) == 14
    for name in inputs:
        variable = f"GATE_{name.upper().replace('-', '_')}"
        assert f"{variable}: ${{{{ inputs.{name} }}}}" in action
        assert f"${{{variable}" in script
    assert os.access(ACTION / "gate.sh", os.X_OK)


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])
def test_no_script_of_a_workflow_holds_an_expression(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"( *)(- )?run: *(.*)", line)
        if match is None:
            continue
        deep = len(match[1]) + len(match[2] or "")
        script = [match[3]]
        for following in lines[number + 1 :]:
            if following.strip() and len(following) - len(following.lstrip()) <= deep:
                break
            script.append(following)
        assert "${{" not in "\n".join(script), f"{path.name}:{number + 1}"
