"""An ssh server on the loopback: own port, own keys, all of it in a temporary folder, and ended with the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType

SECONDS_TO_START = 20.0


def why_none() -> str | None:
    """Return why no server can be started here; None where one can."""
    for name in ("ssh", "ssh-keygen"):
        if shutil.which(name) is None:
            return f"there is no {name} here: install OpenSSH's client"
    return None if sshd() else "there is no sshd here: install openssh-server"


def sshd() -> str | None:
    """Return the server's program, which insists on being started by its full path."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


class SshServer:
    """A server that lets the user of this process in, by a key of its own.

    Args:
        folder: for keys, configuration and log.

    Attributes:
        port: where it listens, on 127.0.0.1.
        config: of a client that reaches it as "board", and knows it by its key.
        log: what it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.user = folder, getpass.getuser()
        self.config, self.log = folder / "client.config", folder / "sshd.log"
        self.port = _free_port()

    @property
    def address(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    def __enter__(self) -> SshServer:
        for name in ("host_key", "key"):
            line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(line, check=True, stdin=subprocess.DEVNULL)
        self.write("authorized_keys", (self.folder / "key.pub").read_text())
        self.write("known_hosts", f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}")
        server = self.write(
            "sshd.config",
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\nUseDNS no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            "MaxStartups 100\n",
        )
        self.write(
            self.config.name,
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n"
            f"Host *\n  User {self.user}\n"
            f"  IdentityFile {self.folder}/key\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n",
        )
        if os.geteuid() == 0:  # where a server of root's drops its rights; the package's service makes it, we run none
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = sshd()
        assert program is not None
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_bound(), program, "-D", "-e", "-f", str(server)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while not _listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"sshd does not start: {self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(10)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


def _bound() -> list[str]:
    """What ends a program with this process, also where that is killed."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with closing(socket.socket()) as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0
