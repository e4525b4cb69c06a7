"""The program `mggc-edge`: its commands, and what becomes of everything that ends them.

Importing this file must stay cheap: `mggc-edge --help` loads no numpy, torch, onnx or onnxruntime. A command loads what
it needs when it runs.
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
from mggc_edge.cli import bench, compress, demo, doctor, export, inspect, report, settings, train, translate, verify
from mggc_edge.cli.interrupts import heard
from mggc_edge.cli.job import JobInterruptedError
from mggc_edge.cli.output import Output
from mggc_edge.errors import CheckFailedError, MggcEdgeError, SettingError

EXIT_USER, EXIT_USAGE, EXIT_CHECK, EXIT_BUG, EXIT_INTERRUPTED = 1, 2, 3, 70, 130
# Flags of the program as a whole; they may stand anywhere on the line.
GLOBAL_FLAGS = ("--quiet", "--no-color")
EPILOG = "--quiet and --no-color may stand anywhere on the line; NO_COLOR works as well."

app = typer.Typer(
    name="mggc-edge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"mggc-edge {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
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


app.command("compress")(compress.compress)
app.command("train")(train.train)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("translate")(translate.translate)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("settings")(settings.settings)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _overview() -> typer.Typer:
    """Return the program with commands that take nothing: to list them, their flags need not be worked out."""
    listed = typer.Typer(
        name="mggc-edge", no_args_is_help=True, rich_markup_mode="rich", context_settings=app.info.context_settings
    )
    listed.callback(epilog=EPILOG)(program)
    for command in app.registered_commands:
        listed.command(command.name, help=command.callback.__doc__)(lambda: None)
    return listed


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
        chosen = _overview() if rest in (["--help"], ["-h"]) else app
        result: Any = chosen(args=[*flags, *rest], prog_name="mggc-edge", standalone_mode=False)
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


def _with_values(words: Sequence[str]) -> list[str]:
    """Give `--resume` without a run the empty one: options whose value may be left out are not known to Typer."""
    following = [*words[1:], "-"]
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
