"""The agent as one file: an archive that Python runs, made of the files in agent/ and the library's machine.py.

The same files give the same bytes on every machine: no times, no order of a disk, no compression. Its name is its
SHA-256, so a device that has it is not sent it again.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mggc_edge import machine

AGENT = Path(__file__).parent.parent / "agent"
FIRST_LINES = AGENT / "first_lines.py"  # sent as text, before the archive


@dataclass(frozen=True)
class Agent:
    """The agent's archive.

    Attributes:
        name: its SHA-256 with the ending of an archive that Python runs.
        data: its bytes.
    """

    name: str
    data: bytes


@cache
def agent() -> Agent:
    """Return the archive."""
    files = {path.name: path for path in AGENT.glob("*.py") if path != FIRST_LINES}
    files["machine.py"] = Path(machine.__file__)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    data = packed.getvalue()
    return Agent(f"{hashlib.sha256(data).hexdigest()}.pyz", data)
