"""The agent as one file."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from mggc_edge.benchmarks.devices.pack import AGENT, agent
from tests.benchmarks.agent.test_worker import CLOSE, OPEN
from tests.benchmarks.bench_helpers import convolutions


def test_the_same_files_are_the_same_bytes_named_by_their_hash() -> None:
    found = agent()
    agent.cache_clear()
    assert agent() == found
    assert found.name == f"{hashlib.sha256(found.data).hexdigest()}.pyz"
    with zipfile.ZipFile(io.BytesIO(found.data)) as archive:
        names = archive.namelist()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("worker.py") == (AGENT / "worker.py").read_bytes()
    assert names == sorted(names)
    assert {"__main__.py", "engines.py", "machine.py", "serve.py", "worker.py"} <= set(names)
    assert "first_lines.py" not in names


def test_the_archive_runs_models_without_the_library(tmp_path: Path) -> None:
    packed, model = tmp_path / "agent.pyz", convolutions(tmp_path / "a.onnx")
    packed.write_bytes(agent().data)
    program = (
        f"import runpy, sys; sys.argv = ['agent', 'worker']; runpy.run_path({str(packed)!r}, run_name='__main__'); "
        "sys.stderr.write(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    asked = "".join(f"{json.dumps(one)}\n" for one in ({**OPEN, "path": str(model)}, CLOSE))
    done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True, check=True)
    opened, closed = (json.loads(line) for line in done.stdout.splitlines())
    assert opened["provider"] == "CPUExecutionProvider"
    assert closed["rss_peak_bytes"] > 2**20
    assert {"numpy", "onnxruntime", "mggc_agent"} <= set(done.stderr.split())
    assert "mggc_edge" not in done.stderr.split()
