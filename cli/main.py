"""The program `mggc-edge`: its commands, and what becomes of everything that ends them.

Importing this file must stay cheap: `mggc-edge --help` loads no numpy, torch, onnx or onnxruntime, and no command. A
command is loaded when it is asked for, and loads what it needs when it runs.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mggc_edge._version import __version__
from mggc_edge.cli import commands
from mggc_edge.cli.interrupts import heard
from mggc_edge.cli.job import JobInterruptedError
from mggc_edge.cli.output import Output
from mggc_edge.errors import CheckFailedError, MggcEdgeError, SettingError

EXIT_USER, EXIT_USAGE, EXIT_CHECK, EXIT_BUG, EXIT_INTERRUPTED = 1, 2, 3, 70, 130
# Flags of the program as a whole; they may stand anywhere on the line.
GLOBAL_FLAGS = ("--quiet", "--no-color")
COMPLETION = "_MGGC_EDGE_COMPLETE"  # is set by the scripts of --install-completion, beside an empty command line
EPILOG = "--quiet and --no-color may stand anywhere on the line; NO_COLOR works as well."


def _version(show: bool) -> None:
    if show:
        typer.echo(f"mggc-edge {__version__}")
        raise typer.Exit


def program(
    context: typer.Context,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no remarks: results and errors only.")
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn a trained image-to-image GAN generator into a small one that runs fast on a real device, with proof."""
    context.obj = Output(quiet=quiet, color=not no_color)


def program_with(loaded: Sequence[str] = tuple(commands.SUMMARIES)) -> typer.Typer:
    """Return the program with all its commands, of which these are loaded and the others can only be listed."""
    app = typer.Typer(
        name="mggc-edge",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=EPILOG)(program)
    commands.add(app, loaded)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    arguments = list(arguments)
    stop = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [flag for flag in GLOBAL_FLAGS if flag in arguments[:stop]]
    rest = _with_values([word for word in arguments[:stop] if word not in GLOBAL_FLAGS]) + arguments[stop:]
    output = Output(quiet="--quiet" in flags, color="--no-color" not in flags)
    if "--no-color" in flags:
        os.environ["NO_COLOR"] = "1"  # for the help pages, which are not ours to colour
    try:
        result: Any = program_with(_needed(rest))(args=[*flags, *rest], prog_name="mggc-edge", standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
        if code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this
            raise KeyboardInterrupt
        return code
    except MggcEdgeError as error:
        output.error(error.message, error.hint)
        if isinstance(error, SettingError):
            return EXIT_USAGE
        return EXIT_CHECK if isinstance(error, CheckFailedError) else EXIT_USER
    except JobInterruptedError as error:
        output.error(error.message, error.hint)
        return EXIT_INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        output.error("interrupted; files already written are complete")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Nothing more can be said, also not when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USER
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        output.error(f"the result cannot be written: {error.strerror}", hint="stdout goes to a full or closed file")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  what is left cannot be written when Python ends
        return EXIT_USER
    except typer.TyperException as error:
        return _usage(error)


def _needed(words: Sequence[str]) -> Sequence[str]:
    """Return the commands that a command line needs loaded: the one it names; all where a shell completes."""
    if COMPLETION in os.environ:
        return tuple(commands.SUMMARIES)
    command = commands.asked_for(words)
    return () if command is None else (command,)


def _with_values(words: Sequence[str]) -> list[str]:
    """Give `--resume` without a run the empty one: options whose value may be left out are not known to Typer."""
    following = [*words[1:], "-"][: len(words)]
    return [
        "--resume=" if word == "--resume" and after.startswith("-") else word
        for word, after in zip(words, following, strict=True)
    ]


def _usage(error: Any) -> int:
    error.show()
    code: int = error.exit_code
    return code


def main() -> None:
    """Entry point: run the command line of this process and exit; a bug ends in its traceback and exit code 70."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job cleans up like one that is interrupted
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for a bar
    try:
        with heard():
            code = run(sys.argv[1:])
    except Exception:  # noqa: BLE001  everything that is not an error of ours is a bug of ours
        import traceback

        traceback.print_exc()
        sys.stderr.write("This is a bug in mggc-edge. Please report it with the lines above and `mggc-edge doctor`.\n")
        code = EXIT_BUG
    sys.exit(code)
