"""Runs command lines of jobs in forked processes, which stop themselves at a given moment of a given stage.

A line of JSON on stdin is an order; its answer is a line of JSON on stdout. What takes long to load is loaded once,
here, so that a test can kill and resume many processes in seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mggc_edge.cli import main as program
from mggc_edge.jobs import choose, prove, train
from mggc_edge.jobs.folder import Job
from mggc_edge.report import page
from mggc_edge.training import loop

# In the order in which a job goes through them; a stage that is finished is not gone through again.
STAGES = ("outputs", "discriminator", "encoder", "prune", "finetune", "export", "quality", "bench", "report", "train")
WHOLE = ("outputs", "export", "quality", "bench")  # the others are told of by the loop


class Hook:
    """Notes how long every stage takes, and arranges the end of this process in one of them.

    A stage that is faster than it was when the moment was chosen is stopped at its end.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._stop, self._armed, self._once = order.get("stop"), False, threading.Lock()
        self.seconds: dict[str, float] = {}
        self.threads = 0

    def _end(self, how: int) -> bool:
        first = self._once.acquire(blocking=False)  # and never released
        if first:
            os.kill(os.getpid(), how)
        return first

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        stop = self._stop
        armed_here = stop is not None and not self._armed and STAGES.index(name) >= STAGES.index(stop["stage"])
        if stop is not None and armed_here:
            self._armed = True
            timer = threading.Timer(stop["after_s"], self._end, (stop["signal"],))
            timer.daemon = True
            timer.start()
        start = time.perf_counter()
        yield
        if stop is not None and armed_here and not self._end(stop["signal"]):
            timer.join()  # the signal has been given, and ends this process here: at once, or by `cli.interrupts`
            time.sleep(60)
        self.threads = torch.get_num_threads()
        self.seconds[name] = time.perf_counter() - start


def hooked(hook: Hook) -> None:
    """Put the hook around every stage."""
    job_stage, run_stage, build_report = Job.stage, loop.run_stage, page.build_report

    @contextlib.contextmanager
    def whole(self: Job, name: str) -> Iterator[None]:
        with hook.stage(name) if name in WHOLE else contextlib.nullcontext(), job_stage(self, name):
            yield

    def trained(stage: loop.Stage, *arguments: Any, **more: Any) -> bool:
        with hook.stage(stage.name):
            return run_stage(stage, *arguments, **more)

    def report(run: Path) -> Path:
        with hook.stage("report"):
            return build_report(run)

    Job.stage = whole  # type: ignore[method-assign]
    choose.run_stage = trained  # type: ignore[attr-defined]
    train.run_stage = trained  # type: ignore[attr-defined]
    prove.build_report = report  # type: ignore[attr-defined]


def perform(order: dict[str, Any]) -> int:
    """Run one command line in this process; return its exit code."""
    os.chdir(order["cwd"])
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    loop.SAVE_EVERY_S = loop.MAX_SAVE_EVERY_S = order["save_every_s"]
    hook = Hook(order)
    hooked(hook)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["mggc-edge", *order["words"]]
    code = program.EXIT_BUG
    try:
        program.main()
    except SystemExit as end:
        code = int(str(end.code))
    Path("stages.json").write_text(json.dumps({"seconds": hook.seconds, "threads": hook.threads}))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def in_child(work: Callable[[], int]) -> int:
    """Return what became of work in a forked process: its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:  # noqa: BLE001  a child must not go on as a second server
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up() -> None:
    """Load everything that an export loads, which takes most of its time."""
    from mggc_edge.compiler.export_settings import ExportSettings
    from mggc_edge.compiler.to_onnx import to_onnx
    from mggc_edge.models.families import layer_table
    from mggc_edge.models.network import Network
    from mggc_edge.models.resnet import resnet_spec
    from mggc_edge.settings import Settings

    spec = resnet_spec(blocks=1, ngf=4)
    with tempfile.TemporaryDirectory() as folder:
        network = Network(spec, layer_table(spec, (32, 32)))
        to_onnx(network, Path(folder) / "a.onnx", ExportSettings.from_settings(Settings(), image_size=(32, 32)))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        code = in_child(functools.partial(perform, order))
        answers.write(json.dumps({"code": code}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
