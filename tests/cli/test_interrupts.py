"""An interrupt that Python would drop reaches the program."""

from __future__ import annotations

import sys
import time
import weakref
from typing import Any

import pytest

from mggc_edge.cli.interrupts import heard


class Gone:
    """Nothing that stays."""


class Interrupted:
    """Is interrupted while it is destroyed."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


class Broken:
    """Has a finaliser with a bug."""

    def __del__(self) -> None:
        raise ValueError("a bug")


def wait_without(thing: object) -> None:
    """Let go of a thing, and wait for longer than any test may take."""
    del thing
    time.sleep(30)


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_in_a_finaliser_arrives_and_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), heard():
        wait_without(Interrupted())
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_in_the_callback_of_a_weak_reference_arrives(capfd: pytest.CaptureFixture[str]) -> None:
    gone = [Gone()]
    reference = weakref.ref(gone[0], _interrupt)
    with pytest.raises(KeyboardInterrupt), heard():
        wait_without(gone.pop())
    assert reference() is None
    assert capfd.readouterr() == ("", "")


def test_what_else_is_dropped_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    before = sys.unraisablehook
    with heard():
        Broken()
    assert [type(one.exc_value) for one in told] == [ValueError]
    assert sys.unraisablehook is before
