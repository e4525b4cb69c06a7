"""Clocks of a Jetson: what they are, and a guard that locks them for a while and puts them back whatever happens.

`jetson_clocks` locks processor, GPU and memory to the highest clocks of the present power mode; the mode itself
(nvpmodel) is read and never changed. The guard is a process of its own, in a session of its own:

    python agent clocks [ROOT]

It stores the clocks, locks them, answers with a line of JSON, and then waits until something comes on its stdin, or
that ends, as it does when whoever started it fails or is killed; or until a signal comes. Then it restores what it
stored and answers once more. A Ctrl-C in a terminal does not reach it. Should the guard itself be killed, what it
stored is left in /run/mggc-edge, from where the next guard restores it first; a restart of the board clears both.

    {"locked": true, "remarks": [...]}         then {"restored": true, "remarks": [...]}
    {"error": "clocks", "message", "hint"}     before it ends with exit code 1
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Sequence, TextIO

from .files import in_order, text

TOOL, MODES = "usr/bin/jetson_clocks", "usr/sbin/nvpmodel"
FOLDER, STORE, OWNER = "run/mggc-edge", "clocks.conf", "owner"
# Limits of clocks, which anybody may read: what jetson_clocks changes is among them.
LIMITS = tuple(
    f"sys/{place}/{name}"
    for place, names in (
        ("devices/system/cpu/cpufreq/policy*", ("scaling_min_freq", "scaling_max_freq", "scaling_governor")),
        ("class/devfreq/*gpu*", ("min_freq", "max_freq")),
        ("class/devfreq/*.g[av]*b", ("min_freq", "max_freq")),  # 17000000.ga10b, gv11b
    )
    for name in names
)
SECONDS = 60.0  # for one run of jetson_clocks, which takes one or two
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROOT_HINT = "run it as root there, allow sudo without a password (NOPASSWD), or leave --lock-clocks out"

# A command -> its exit code and what it printed.
Run = Callable[[Sequence[str]], "tuple[int, str]"]
Limits = Dict[str, str]


class ClocksError(RuntimeError):
    """The clocks cannot be locked: a sentence (`message`) and a way out (`hint`)."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


class _SignalledError(BaseException):
    """A signal came."""


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command without input; return its exit code, 127 where it cannot be started, and what it printed."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {SECONDS:g} s"
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def power_mode(root: Path = Path("/"), run: Run = run) -> dict[str, Any] | None:
    """Return name and number of the present power mode; None where nothing says it.

    nvpmodel answers "NV Power Mode: MAXN" and, in a line of its own, 0. Where it needs root, its status file is left,
    with the number alone.
    """
    if (root / MODES).is_file():
        code, said = run([str(root / MODES), "-q"])
        name = re.search(r"^NV Power Mode:\s*(\S.*)$", said, flags=re.MULTILINE)
        number = re.search(r"^(\d+)$", said, flags=re.MULTILINE)
        if code == 0 and name:
            return {"name": name.group(1).strip(), "id": int(number.group(1)) if number else None}
    kept = re.match(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status"))
    return {"name": None, "id": int(kept.group(1))} if kept else None


def limits(root: Path = Path("/")) -> Limits:
    """Return the limits of all clocks, by the path of the kernel's file below the root."""
    paths = in_order(path for pattern in LIMITS for path in root.glob(pattern))
    return {str(path.relative_to(root)): text(path) for path in paths}


def left_locked(root: Path = Path("/")) -> Path | None:
    """Return the file of what a guard stored that was killed while it held the clocks; None where there is none."""
    import fcntl

    store, owner = root / FOLDER / STORE, root / FOLDER / OWNER
    if not store.exists():
        return None
    try:
        with owner.open(encoding="ascii") as held:
            fcntl.flock(held.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return store
    except OSError:
        return None  # somebody holds them
    return store


def command(agent: str, root: Path = Path("/"), python: str = sys.executable, run: Run = run) -> list[str]:
    """Return the command that starts the guard: as it is for root, else through sudo, which asks for nothing.

    Args:
        agent: the folder or archive that is the agent.
        root: where the board's files lie.
        python: what runs it.
        run: how a command is run, for tests.

    Raises:
        ClocksError: there is no jetson_clocks; or this is not root, and sudo would ask for a password, or is not there.
    """
    if not (root / TOOL).is_file():
        raise ClocksError(
            "--lock-clocks needs jetson_clocks, which is not on the device",
            "leave --lock-clocks out: only a Jetson with NVIDIA's own Linux has it",
        )
    words = [python, agent, "clocks", *([] if root == Path("/") else [str(root)])]
    if os.geteuid() == 0:
        return words
    if run(["sudo", "-n", "true"])[0] != 0:
        raise ClocksError("--lock-clocks needs root on the device, and sudo does not give it", ROOT_HINT)
    return ["sudo", "-n", *words]


class Lock:
    """Clocks that are locked, and were stored before.

    Args:
        root: where the board's files lie.
        run: how a command is run, for tests.
    """

    def __init__(self, root: Path = Path("/"), run: Run = run) -> None:
        self._root, self._run = root, run
        self._tool, self._store, self._owner = root / TOOL, root / FOLDER / STORE, root / FOLDER / OWNER
        self._held: TextIO | None = None
        self._before: Limits | None = None

    def take(self) -> list[str]:
        """Store the clocks and lock them; return what is to be said.

        Raises:
            ClocksError: jetson_clocks is not there or fails, or another measurement holds the clocks. They are then as
                they were.
        """
        self._hold()
        try:
            remarks = self._restore_left() if self._store.exists() else []
            before = limits(self._root)
            self._call("--store", str(self._store))
            self._before = before
            self._call()
        except BaseException:
            self.give_back()
            raise
        return remarks

    def give_back(self) -> list[str]:
        """Restore what was stored, if anything was; return what is to be said. It may be called again."""
        remarks: list[str] = []
        before, self._before = self._before, None
        if before is not None:
            remarks = self._restore(before)
        if self._held is not None:
            self._held.close()  # which frees it for others
            self._held = None
        return remarks

    def _hold(self) -> None:
        """Take the file that one guard at a time may hold: the kernel frees it when its process ends, however."""
        import fcntl

        try:
            self._owner.parent.mkdir(parents=True, exist_ok=True)
            held = self._owner.open("a+", encoding="ascii")
        except OSError as error:
            raise ClocksError(f"'{self._owner}' cannot be written: {error.strerror}", ROOT_HINT) from error
        try:
            fcntl.flock(held.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held.close()
            owner = text(self._owner)
            raise ClocksError(
                f"another measurement has locked the clocks (process {owner})", "wait until it has ended"
            ) from error
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        self._held = held

    def _restore_left(self) -> list[str]:
        """Restore what a guard that was killed has left."""
        remarks = self._restore({})
        if remarks:
            raise ClocksError(remarks[0])
        return ["an earlier measurement was killed and had left the clocks locked: they were put back first"]

    def _restore(self, before: Limits) -> list[str]:
        """Restore from the stored file; keep that file where it fails, for whoever puts it right."""
        way_out = f"sudo jetson_clocks --restore {self._store}, or restart the board"
        code, said = self._run([str(self._tool), "--restore", str(self._store)])
        if code != 0 or "error" in said.lower():
            return [f"the clocks could not be put back ({_last(said) or f'exit code {code}'}): {way_out}"]
        after = limits(self._root)
        # The highest clocks belong to the kernel, which lowers them where it grows hot.
        other = [
            f"{name} was {value} and is {after.get(name)}"
            for name, value in before.items()
            if not name.endswith("max_freq") and after.get(name) != value
        ]
        if other:
            return [f"{len(other)} limits of clocks are not what they were ({other[0]}): {way_out}"]
        with contextlib.suppress(OSError):
            self._store.unlink()
        return []

    def _call(self, *arguments: str) -> None:
        """Run jetson_clocks, some versions of which print errors and end with 0 all the same."""
        code, said = self._run([str(self._tool), *arguments])
        done = self._store.exists() if arguments else _locked(limits(self._root))
        if code != 0 or not done:
            reason = _last(said) or f"exit code {code}"
            hint = ROOT_HINT if "root" in said.lower() else "leave --lock-clocks out"
            raise ClocksError(f"jetson_clocks fails: {reason}", hint)


def guard(root: Path, requests: int, answers: TextIO, run: Run = run) -> int:
    """Hold the clocks until something can be read from the open file `requests`, it ends, or a signal comes.

    Returns:
        The exit code: 1 where the clocks could not be locked or not be put back.
    """
    for number in SIGNALS:
        signal.signal(number, _signalled)
    lock = Lock(root, run)
    try:
        remarks = lock.take()
        _answer(answers, {"locked": True, "remarks": remarks})
        os.read(requests, 1)
    except ClocksError as error:
        _answer(answers, {"error": "clocks", "message": error.message, "hint": error.hint})
        return 1
    except (_SignalledError, OSError):
        pass
    finally:
        _deafen()
        remarks = lock.give_back()
    _answer(answers, {"restored": not remarks, "remarks": remarks})
    return 1 if remarks else 0


def _signalled(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  as `signal` wants it
    _deafen()  # what follows is putting things right, which a second Ctrl-C must not cut off
    raise _SignalledError


def _deafen() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # whoever asked may be gone
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _locked(found: Limits) -> bool:
    """Return whether every processor's clock can have one value alone."""
    lowest = {name: value for name, value in found.items() if name.endswith("scaling_min_freq")}
    return all(found.get(name.replace("min", "max")) == value for name, value in lowest.items())


def _last(said: str) -> str:
    """Return the last line of a text, without the colors that jetson_clocks gives it."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in said.splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]


def main() -> None:
    """Run the guard as a program."""
    with contextlib.suppress(OSError):  # under a Ctrl-C, which goes to a whole session, it has to go on
        os.setsid()
    root = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("/")
    raise SystemExit(guard(root, sys.stdin.fileno(), sys.stdout))
