"""What a board is asked runs under Python 3.8, the one of JetPack 5, and says there what it says here."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent.board import BoardSession
from mggc_edge.benchmarks.devices.pack import AGENT, agent
from tests.benchmarks.agent.boards import KINDS, make

# Loads the agent as its `__main__` does, and asks every board what can be asked.
PROGRAM = """
import importlib, json, sys, types
from pathlib import Path
place, *roots = sys.argv[1:]
package = types.ModuleType("mggc_agent")
package.__path__ = [place]
sys.modules["mggc_agent"] = package
board = importlib.import_module("mggc_agent.board")
said = {}
for root in roots:
    session = board.BoardSession(Path(root))
    said[root] = {name: session.answers[name]() for name in %r}
    session.close()
print(json.dumps(said))
"""
NAMES = ("board", "heat", "power_start", "lock_clocks", "power_stop", "unlock_clocks")


def python38() -> str:
    kept = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python"))
    for program in (*map(str, kept), shutil.which("python3.8")):
        asked = [program or "none", "-c", "import sys; print(sys.version_info[:2])"]
        if program and subprocess.run(asked, capture_output=True, check=False).stdout == b"(3, 8)\n":
            return program
    pytest.skip("no Python 3.8 on this machine")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_six_boards_say_the_same_under_python_3_8(tmp_path: Path, packed: bool) -> None:
    python = python38()
    place = AGENT
    if packed:
        place = tmp_path / agent().name
        place.write_bytes(agent().data)
    trees = [make(tmp_path / name, name) for name in KINDS]
    done = subprocess.run(
        [python, "-c", PROGRAM % (NAMES,), str(place), *(str(tree.root) for tree in trees)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    said: dict[str, dict[str, Any]] = json.loads(done.stdout)
    for tree in trees:
        there, session = said[str(tree.root)], BoardSession(tree.root)
        assert there["board"] == json.loads(json.dumps(session.answers["board"]()))
        assert there["heat"] == json.loads(json.dumps(session.answers["heat"]()))
        assert there["lock_clocks"] == {"locked": True, "remarks": []}
        assert there["unlock_clocks"] == {"restored": True, "remarks": []}
        assert len(there["power_stop"]["samples"]) >= 2
        assert there["power_stop"]["rails"] == there["power_start"]["rails"] == there["board"]["power"]["rails"]
        assert len(tree.calls()) == 3
