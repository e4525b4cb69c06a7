"""`ssh://user@host:port`, and the command line of ssh for it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from mggc_edge.errors import InputError

SCHEME = "ssh://"
_ADDRESS = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\[\]]+\]|[^:\[\]]*)(?::(?P<port>\d{1,5}))?/?")
_WORD = re.compile(r"[A-Za-z0-9_.%][A-Za-z0-9_.%:\\-]*")  # of users and hosts: nothing that a shell reads
# The user's configuration and agent decide all else. Nothing is asked for, as nobody may be there to answer; nothing is
# forwarded; a connection that is dead is noticed within half a minute.
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "20",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
}


@dataclass(frozen=True)
class Address:
    """Where a device is.

    Attributes:
        host: a name, an IP address or an alias of the user's ssh configuration.
        user, port: None: as ssh chooses.
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        return SCHEME + self.login + ("" if self.port is None else f":{self.port}")

    @property
    def login(self) -> str:
        """What is given to ssh by hand: user@host."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def command(self, remote: str, config: Path | None = None, ssh: str = "ssh") -> list[str]:
        """Return the command line that runs `remote`, which the shell of the device reads.

        Args:
            remote: see `python_command`.
            config: of ssh, instead of the user's own.
            ssh: the program.
        """
        line = [ssh] if config is None else [ssh, "-F", str(config)]
        line += ["-T", "-a", "-x"]
        for name, value in OPTIONS.items():
            line += ["-o", f"{name}={value}"]
        line += [] if self.port is None else ["-p", str(self.port)]
        line += [] if self.user is None else ["-l", self.user]
        return [*line, "--", self.host.strip("[]"), remote]


def parse_address(text: str) -> Address:
    """Return the parts of `ssh://[user@]host[:port]`.

    Raises:
        InputError: it is something else, holds a password, or a part of it is no name.
    """
    match = _ADDRESS.fullmatch(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
    if match is None:
        raise InputError(f"'{text}' is no address of a device", hint="ssh://user@host or ssh://user@host:port")
    user, host, port = match["user"], match["host"], match["port"]
    if user is not None and ":" in user:
        raise InputError(
            f"the address of '{host}' holds a password, which is never used",
            hint="ssh-copy-id sets up a key: ssh://user@host",
        )
    for what, word in (("host", host.strip("[]")), ("user", user)):
        if word is not None and not _WORD.fullmatch(word):
            raise InputError(f"'{word}' is no name of a {what}", hint="ssh://user@host or ssh://user@host:port")
    if port is not None and not 1 <= int(port) <= 65535:
        raise InputError(f"{port} is no port", hint="1 to 65535")
    return Address(host, user, None if port is None else int(port))


def python_command(python: str, program: str) -> str:
    """Return what the device's shell is given to run a few lines of Python.

    Args:
        python: the interpreter there; `~/` at its beginning is the home folder.
        program: for `-c`.

    Raises:
        InputError: the interpreter has no name.
    """
    if not python or python.startswith("-") or not python.isprintable():
        raise InputError(f"'{python}' is no Python", hint="--remote-python /usr/bin/python3.10")
    home = '"$HOME"/' if python.startswith("~/") else ""
    return f"exec {home}{shlex.quote(python.removeprefix('~/') if home else python)} -c {shlex.quote(program)}"
