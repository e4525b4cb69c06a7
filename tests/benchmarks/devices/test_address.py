"""Addresses of devices, and the command lines that follow from them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mggc_edge.benchmarks.devices.address import Address, parse_address, python_command
from mggc_edge.errors import InputError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://me@board", Address("board", "me")),
        ("ssh://board", Address("board")),
        ("ssh://me@board.local:2222/", Address("board.local", "me", 2222)),
        ("ssh://me@[fe80::1%eth0]:22", Address("[fe80::1%eth0]", "me", 22)),
        ("ssh://jetson_1@10.0.0.7", Address("10.0.0.7", "jetson_1")),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "ssh://", "ssh://me@", "ssh://@board", "ssh://me@board:0", "ssh://me@board:65536", "ssh://me@board:x",
        "ssh://me@board/path", "ssh://me@-oProxyCommand=x", "ssh://-oProxyCommand=x", "ssh://-l@board",
        "ssh://me@board name", "ssh://me@$(x)", "ssh://m;e@board", "ssh://me@board\n", "ssh://a@b@board", "board",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parse_address("ssh://me:secret@board")
    assert "secret" not in str(caught.value)
    assert caught.value.hint == "ssh-copy-id sets up a key: ssh://user@host"


def test_ssh_is_asked_for_nothing_but_a_key_and_gets_the_host_after_the_options() -> None:
    line = Address("board", "me", 2222).command("exec x", Path("/c d/config"))
    assert line[:3] == ["ssh", "-F", "/c d/config"]
    assert "BatchMode=yes" in line
    assert line[-7:] == ["-p", "2222", "-l", "me", "--", "board", "exec x"]
    assert Address("[::1]").command("x")[-3:] == ["--", "::1", "x"]
    assert "-F" not in Address("board").command("x")


@pytest.mark.parametrize("python", ["python3", "/a b/it's", "$(reboot)", "a;b", "~x/python"])
def test_the_shell_there_reads_the_name_of_python_as_one_word(python: str) -> None:
    assert shlex.split(python_command(python, "import sys;x('y')")) == ["exec", python, "-c", "import sys;x('y')"]


def test_the_home_folder_is_the_shells() -> None:
    assert python_command("~/my env/bin/python", "x") == "exec \"$HOME\"/'my env/bin/python' -c x"


@pytest.mark.parametrize("python", ["", "-c", "a\nb"])
def test_a_python_without_a_name_is_refused(python: str) -> None:
    with pytest.raises(InputError, match="is no Python"):
        python_command(python, "x")
