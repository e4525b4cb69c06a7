"""What went wrong between here and a device, in words: the exit code and the last lines of ssh, and what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mggc_edge.benchmarks.devices.address import Address
from mggc_edge.errors import DeviceError, MggcEdgeError

NO_SUCH_PROGRAM, NO_PROGRAM, SSH_FAILED = 127, 126, 255
AGAIN = "give the same command again; models that were sent are there"
# A part of what ssh writes -> what it means for "{device} ...", and the way out.
_WORDS: Sequence[tuple[str, str, str]] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "has another host key than it had",
        "find out why; ssh-keygen -R {host} forgets the old key",
    ),
    (
        "Host key verification failed",
        "is not known to ssh",
        "connect once by hand, and compare the key: {by_hand}",
    ),
    ("key is known for", "is not known to ssh", "connect once by hand, and compare the key: {by_hand}"),
    (
        "Permission denied",
        "does not let you in: no key that ssh offers is accepted, and no password is asked for",
        "ssh-copy-id sets up a key; {by_hand} must work without a question",
    ),
    (
        "Too many authentication failures",
        "does not let you in: too many keys were offered",
        "name the key in ssh's configuration: IdentitiesOnly yes, IdentityFile",
    ),
    ("Could not resolve hostname", "cannot be reached: its name is not known", "check the name, or use its address"),
    ("Connection refused", "cannot be reached: no ssh server answers there", "check the port, and that sshd runs"),
    ("No route to host", "cannot be reached: there is no way to it", "check that it is on, and the network"),
    ("Network is unreachable", "cannot be reached: there is no network to it", "check the network"),
    ("timed out", "cannot be reached: it does not answer", "check that it is on, and the network"),
    ("Bad owner or permissions", "cannot be reached: ssh refuses its own configuration", "{last}"),
    ("Can't open user config file", "cannot be reached: ssh cannot read its configuration", "see bench.ssh_config"),
    ("Bad configuration option", "cannot be reached: ssh refuses its own configuration", "{last}"),
)


def complaint(address: Address, python: str, code: int | None, words: Sequence[str], answered: bool) -> MggcEdgeError:
    """Return the error of a connection that ended.

    Args:
        address: of the device.
        python: the interpreter there.
        code: exit code of ssh, None where it goes on without an answer.
        words: what it wrote last.
        answered: whether the agent had answered.
    """
    last = words[-1].strip() if words else ""
    if answered:
        if code is None:
            return DeviceError(f"{address} does not answer any more", hint=AGAIN)
        if code == SSH_FAILED or code < 0:
            return DeviceError(f"the connection to {address} was lost", hint=f"{last}; {AGAIN}" if last else AGAIN)
        return DeviceError(f"the agent on {address} ended unexpectedly, with exit code {code}", hint=last or AGAIN)
    if code is None:
        return DeviceError(f"{address} does not answer", hint="see whether Python starts there by hand")
    if code == NO_SUCH_PROGRAM:
        return DeviceError(
            f"there is no '{python}' on {address}", hint="--remote-python names the Python there, 3.8 or later"
        )
    if code == NO_PROGRAM:
        return DeviceError(f"'{python}' on {address} cannot be run", hint="--remote-python names the Python there")
    said = "\n".join(words)
    if code == SSH_FAILED:
        by_hand = f"ssh {address.login}" if address.port is None else f"ssh -p {address.port} {address.login}"
        for part, meaning, way_out in _WORDS:
            if part in said:
                hint = way_out.format(host=address.host, by_hand=by_hand, last=last)
                return DeviceError(f"{address} {meaning}", hint=hint)
        return DeviceError(f"{address} cannot be reached", hint=last or None)
    return DeviceError(f"'{python}' on {address} ended with exit code {code}", hint=last or None)


def refusal(address: Address, python: str, answer: Mapping[str, Any]) -> MggcEdgeError:
    """Return the error that the device itself tells: its Python, its folder, its disk."""
    kind, message = str(answer.get("error")), str(answer.get("message"))
    if kind == "old":
        return DeviceError(
            f"'{python}' on {address} is Python {answer.get('python')}; measuring needs 3.8 or later",
            hint="--remote-python names a newer one",
        )
    if kind == "full":
        return DeviceError(
            f"the disk of {address} is full: {message}", hint="make room, or take another folder: --remote-dir"
        )
    if kind == "changed":
        return DeviceError(f"a model changed while it was sent to {address}", hint="give the same command again")
    if kind == "folder":
        return DeviceError(
            f"the folder '{answer.get('folder')}' on {address} cannot be used: {message}",
            hint="--remote-dir names another one",
        )
    return DeviceError(f"{address}: {message}", hint="--remote-dir names another folder" if kind == "store" else None)
