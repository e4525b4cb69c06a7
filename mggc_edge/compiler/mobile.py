"""ONNX Runtime Mobile: .ort files for a platform, what a build for them has to hold, and what accelerators can do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mggc_edge.artifacts import writing
from mggc_edge.compiler.targets import this_target
from mggc_edge.errors import ArtifactError
from mggc_edge.machine import Machine

TOOL = Path(__file__).with_name("mobile_tool.py")
CONFIG_FILE = "required_operators_and_types.config"
LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"  # a variable that would change what the tool does
MAX_SECONDS = 1800.0
WORDS = {
    "yes": "{0} should run it well",
    "maybe": "{0} may help, to be measured on the phone",
    "no": "{0} would not help",
}
Platform = Literal["amd64", "arm"]


@dataclass(frozen=True)
class Usability:
    """What ONNX Runtime's usability checker says of an accelerator of phones.

    Attributes:
        provider: of the accelerator.
        verdict: "yes", "maybe" or "no": whether it should be faster than the phone's processor.
        partitions: parts of the graph that it would run; between them, data go to the processor and back.
        supported, nodes: nodes in these parts, and in all.
        unsupported: operators that it lacks.
    """

    provider: str
    verdict: str
    partitions: int
    supported: int
    nodes: int
    unsupported: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.verdict not in WORDS:
            raise ArtifactError(f"'{self.verdict}' is no verdict", hint=", ".join(WORDS))

    def sentence(self) -> str:
        """Return the verdict in words."""
        parts = f"{self.partitions} part{'s' * (self.partitions != 1)} with {self.supported} of {self.nodes} nodes"
        lacks = f"; it lacks {', '.join(self.unsupported)}" if self.unsupported else ""
        return f"{WORDS[self.verdict].format(self.provider)}: {parts}{lacks}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with all of this, and the `sentence`."""
        return {**asdict(self), "unsupported": list(self.unsupported), "sentence": self.sentence()}


def platform_of(target: str, machine: Machine | None = None) -> Platform | None:
    """Return the platform that files of a target are converted for; None where they have to run on any.

    On "amd64" weights are laid out in blocks of as many channels as the vectors of the processor that converts have
    floats, and read so by the processor that runs them: for another one they would be wrong. So it is taken only where
    the target is this machine. "arm" leaves 8-bit values signed.
    """
    if target == this_target(machine) and target.startswith("x86-"):
        return "amd64"
    return "arm" if target in ("arm64", "ort-mobile") else None


def platform_remark(target: str, platform: Platform | None) -> str | None:
    """Return what has to be said of .ort files that have no platform; None where there is nothing."""
    if platform is not None:
        return None
    if target.startswith("x86-"):
        return (
            f".ort files for '{target}' that are not converted on such a processor leave out its blocked layout, and "
            "run slower than the .onnx file; export them there"
        )
    return (
        f".ort files for '{target}' run on any processor, and leave out the blocked layout that x86 gains from; "
        "on the machine that runs them, --target auto has it"
    )


def convert_to_ort(
    models: Sequence[Path], folder: Path, platform: Platform | None
) -> Mapping[Path, tuple[Usability, ...]]:
    """Convert .onnx files to .ort files of the same name, and write `required_operators_and_types.config` for all.

    Args:
        models: .onnx files of different names.
        folder: that the files are written into; it exists.
        platform: see `platform_of`.

    Returns:
        For every new file what accelerators of phones could do with its graph.

    Raises:
        ArtifactError: ONNX Runtime's tool fails.
        OutputError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with writing(folder):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=folder))
        source, made = Path(place, "onnx"), Path(place, "ort")
        copies = [source / model.name for model in models]
        with writing(folder):
            source.mkdir()
            for model, copy in zip(models, copies, strict=True):
                shutil.copyfile(model, copy)
        found = _ask({"models": [str(copy) for copy in copies], "folder": str(made), "platform": platform})
        with writing(folder):
            for model in models:
                shutil.copyfile(made / f"{model.stem}.ort", folder / f"{model.stem}.ort")
            # The tool names files by where they were made.
            text = (made / CONFIG_FILE).read_text(encoding="utf-8").replace(f"{made.resolve()}{os.sep}", "")
            (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return {
        folder / f"{model.stem}.ort": tuple(
            Usability(**{**row, "unsupported": tuple(row["unsupported"])}) for row in found[model.name]
        )
        for model in models
    }


def _ask(request: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Run the tool once, without a shell, and return what it says of every model."""
    names = ", ".join(f"'{Path(path).name}'" for path in request["models"])
    environment = {name: value for name, value in os.environ.items() if name != LEVEL}
    try:
        done = subprocess.run(
            [sys.executable, str(TOOL)],
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
            timeout=MAX_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"converting {names} to .ort took longer than {MAX_SECONDS:g} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with exit code {done.returncode}"
        raise ArtifactError(f"the process that converts {names} to .ort ended {how}", hint=last[-1] if last else None)
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise ArtifactError(f"ONNX Runtime cannot convert {names} to .ort: {answer['error']}")
    found: dict[str, list[dict[str, Any]]] = answer["usability"]
    return found
