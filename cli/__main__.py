"""The program `mggc-edge`, and `python -m mggc_edge.cli` for where it is not on the path.

Nothing is imported before Ctrl-C is looked after: loading the commands takes long enough to be interrupted.
"""

import sys


def main() -> None:
    """Load the program and run the command line of this process; an interrupt on the way ends in exit code 130."""
    try:
        from mggc_edge.cli.main import main as program

        program()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; files already written are complete\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
