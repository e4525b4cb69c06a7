"""`python -m mggc_edge.cli.follow cpu|cuda`: another process of a job, started by rank 0, to which alone it speaks."""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Follow rank 0, whose pipe is stdin, to the end of its job; an error is a line on stderr for it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    from mggc_edge.errors import MggcEdgeError
    from mggc_edge.jobs.devices import choose_devices
    from mggc_edge.jobs.follow import follow_job
    from mggc_edge.jobs.launch import READY, error_line

    def ready() -> None:
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()

    try:
        follow_job(choose_devices("cuda" if sys.argv[1:] == ["cuda"] else "cpu"), ready)
    except MggcEdgeError as error:
        sys.stderr.write(f"{error_line(error)}\n")
        sys.exit(1)


def _end_with_rank_0() -> None:
    # Nothing is ever written: it returns when the other end is closed. Not through sys.stdin: Python aborts where a
    # thread holds its lock at the end.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
