"""What can go wrong, as a tree.

MggcEdgeError                     every error this package raises on purpose: a sentence and a way out
├── InputError                    what was given cannot be used
│   ├── CheckpointError           a checkpoint: unreadable, unsafe, unknown, or left-over keys
│   ├── SpecError                 a network description that makes no sense, or a size it cannot run at
│   ├── PlanError                 a pruning plan that does not fit the network or the budget
│   ├── PictureError              pictures: missing, unreadable, of the wrong shape
│   ├── ArtifactError             an ONNX file, manifest or run folder that cannot be used
│   ├── SettingError              a setting with an unknown name or an impossible value
│   └── FeedError                 arrays that do not fit a runner's inputs
├── OutputError                   a place that cannot be written: other content, read-only, full
├── DeviceError                   a device that cannot be reached, or does not answer as it should
├── MissingDependencyError        a library or engine that is not installed here
├── TrainingError                 training that does not converge: a loss is no longer a number
└── CheckFailedError              it ran, and a check on the result failed

A bug is none of these: it stays a traceback.
"""

from __future__ import annotations

MAX_MESSAGE = 1000


class MggcEdgeError(Exception):
    """An error with a sentence for the user (`message`) and, where there is one, the way out (`hint`)."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = printable(message)
        self.hint = None if hint is None else printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


def printable(text: str) -> str:
    """Return text as one printable line: line breaks and escapes spelled out, the middle of long text cut.

    A name out of a hostile file may hold line breaks, terminal escapes or a megabyte of text.
    """
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE - 300]} ... {text[-290:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 step", "2 steps"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class InputError(MggcEdgeError):
    """What was given cannot be used."""


class CheckpointError(InputError):
    """A checkpoint that is unreadable, unsafe, of an unknown network, or has keys left over."""


class SpecError(InputError):
    """A network description that makes no sense, or a picture size that the network cannot run at."""


class PlanError(InputError):
    """A pruning plan that does not fit the network or the budget."""


class PictureError(InputError):
    """Pictures that are missing, unreadable or of the wrong shape."""


class ArtifactError(InputError):
    """An ONNX file, a manifest or a run folder that cannot be used."""


class SettingError(InputError):
    """A setting with an unknown name or an impossible value."""


class FeedError(InputError):
    """Arrays that do not fit the inputs of a runner."""


class OutputError(MggcEdgeError):
    """A place that cannot be written: it has other content, is read-only, or is full."""


class DeviceError(MggcEdgeError):
    """A device that cannot be reached, or does not answer as it should."""


class MissingDependencyError(MggcEdgeError):
    """A library or an engine that is not installed here."""


class TrainingError(MggcEdgeError):
    """Training that went wrong: a loss is no longer a number. `setting`: the one whose value may be too large."""

    def __init__(self, message: str, hint: str | None = None, setting: str | None = None) -> None:
        super().__init__(message, hint)
        self.setting = setting


class CheckFailedError(MggcEdgeError):
    """The work ran to its end, and a check on the result failed."""
