"""A connection to a board ends while its clocks are locked: the agent puts them back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mggc_edge.benchmarks.agent import clocks, heat
from mggc_edge.benchmarks.devices.pack import agent
from tests.benchmarks.agent.boards import make

# The agent as it is started on a device, from its archive, but for the root of the board's files.
PROGRAM = """
import functools, importlib, sys, types
from pathlib import Path
place, root, folder = sys.argv[1:]
package = types.ModuleType("mggc_agent")
package.__path__ = [place]
sys.modules["mggc_agent"] = package
serve = importlib.import_module("mggc_agent.serve")
serve.Surroundings = functools.partial(serve.Surroundings, root=Path(root))
sys.argv = [place, "serve", folder]
serve.main()
"""


@pytest.mark.parametrize("how", ["closed", "signal", "killed"])
def test_clocks_are_put_back_when_the_connection_ends(tmp_path: Path, how: str) -> None:
    tree, folder = make(tmp_path / "board", "orin-nano"), tmp_path / "folder"
    before = clocks.limits(tree.root)
    folder.mkdir()
    place = folder / agent().name
    place.write_bytes(agent().data)
    command = [sys.executable, "-c", PROGRAM, str(place), str(tree.root), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"do": "serve"}
        process.stdin.write('{"do": "power_start"}\n{"do": "lock_clocks"}\n')
        process.stdin.flush()
        process.stdout.readline()
        assert json.loads(process.stdout.readline()) == {"do": "lock_clocks", "locked": True, "remarks": []}
        assert heat.locked(heat.look(tree.root)) == {"cpu": True, "gpu": True}
        if how == "closed":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM if how == "signal" else signal.SIGKILL)
        code = process.wait(20)
    assert code == (-signal.SIGKILL if how == "killed" else 0)
    while clocks.limits(tree.root) != before:  # of a killed agent, the guard alone is left to do it
        assert how == "killed"
        time.sleep(0.01)
    assert tree.calls()[2:] == [f"--restore {tree.root}/run/mggc-edge/clocks.conf"]
