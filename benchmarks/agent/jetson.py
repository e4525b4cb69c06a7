"""Which Jetson this is: its module, L4T and JetPack, and what can be measured on it; the memory that all of it shares.

Facts come from the device tree, NVIDIA's release file and dpkg, below a root that tests make up. NVML (nvidia-smi) is
not asked: on these boards it starts, and then most of what it is asked is "not supported".

Python 3.8 and the standard library, nothing of mggc_edge: the agent carries this file to a board.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .files import text

# SoC, as `compatible` has it -> compute capability of its GPU.
SOCS = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
# NVIDIA's part numbers of modules. One device tree serves several: "p3767-0003" is also in that of a "-0005".
MODULES = {
    "p2180-1000": "Jetson TX1",
    "p3448-0000": "Jetson Nano (developer kit)",
    "p3448-0002": "Jetson Nano",
    "p3448-0003": "Jetson Nano 2GB",
    "p3310-1000": "Jetson TX2",
    "p3489-0000": "Jetson TX2i",
    "p3489-0888": "Jetson TX2 4GB",
    "p3636-0001": "Jetson TX2 NX",
    "p2888-0001": "Jetson AGX Xavier",
    "p2888-0004": "Jetson AGX Xavier",
    "p2888-0005": "Jetson AGX Xavier 64GB",
    "p2888-0008": "Jetson AGX Xavier Industrial",
    "p3668-0000": "Jetson Xavier NX (developer kit)",
    "p3668-0001": "Jetson Xavier NX",
    "p3668-0003": "Jetson Xavier NX 16GB",
    "p3701-0000": "Jetson AGX Orin (developer kit)",
    "p3701-0004": "Jetson AGX Orin 32GB",
    "p3701-0005": "Jetson AGX Orin 64GB",
    "p3701-0008": "Jetson AGX Orin Industrial",
    "p3767-0000": "Jetson Orin NX 16GB",
    "p3767-0001": "Jetson Orin NX 8GB",
    "p3767-0003": "Jetson Orin Nano 8GB",
    "p3767-0004": "Jetson Orin Nano 4GB",
    "p3767-0005": "Jetson Orin Nano 8GB (developer kit)",
    "p3834-0008": "Jetson AGX Thor",
}
# L4T -> JetPack, where dpkg does not say it. A release that is not here is called by its first number: "6.x".
JETPACKS = {
    "32.4.3": "4.4", "32.4.4": "4.4.1", "32.5.0": "4.5", "32.5.1": "4.5.1", "32.6.1": "4.6", "32.7.1": "4.6.1",
    "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4", "32.7.5": "4.6.5", "32.7.6": "4.6.6",
    "34.1.0": "5.0", "34.1.1": "5.0.1", "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2",
    "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.4": "5.1.6",
    "36.2.0": "6.0 DP", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1",
    "36.5.0": "6.2.2", "38.2.0": "7.0", "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
SERIES = {"32": "4.x", "34": "5.x", "35": "5.x", "36": "6.x", "38": "7.x", "39": "7.x"}
POWER_ONLY = (
    "JetPack 4, with Python 3.6 and TensorRT 8.2, is too old to measure models on: the board is recognized, and its "
    "power is read"
)
FROM_A_HOST = (
    "JetPack 5 has Python 3.8, which runs the agent: measure it from another machine, --device ssh://user@host"
)
_SECONDS = 10.0


@dataclass(frozen=True)
class Board:
    """A Jetson.

    Attributes:
        model: as the device tree calls the board.
        module: the module's name; with "or" where one device tree serves several. None where it is not known.
        parts: part numbers of modules in the device tree, such as p3767-0005.
        soc: tegra210, tegra186, tegra194, tegra234 or tegra264.
        compute: compute capability of the GPU.
        l4t: version of Linux for Tegra, such as 36.4.3.
        jetpack: such as 6.2; "6.x" where the L4T is of that series and otherwise unknown.
        remark: what cannot be done here, and what to do instead; None where all can.
        models: whether models can be measured here.
    """

    model: str
    module: str | None
    parts: tuple[str, ...]
    soc: str | None
    compute: str | None
    l4t: str | None
    jetpack: str | None
    remark: str | None
    models: bool

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with these attributes."""
        return {**asdict(self), "parts": list(self.parts)}


def board(root: Path = Path("/")) -> Board | None:
    """Return which Jetson this is; None where it is none."""
    tree = root / "proc/device-tree"
    compatible = text(tree / "compatible").replace("\0", "\n").split()
    chips = [name.split(",")[1] for name in compatible if name.startswith("nvidia,tegra")]
    if not chips:
        return None
    soc = next((chip for chip in chips if chip in SOCS), None)
    # "nvidia,p3768-0000+p3767-0005" names the carrier and the module; revisions follow: "p3448-0000-b00".
    numbers = dict.fromkeys(number for name in compatible for number in re.findall(r"p\d{4}-\d{4}", name))
    parts = tuple(number for number in numbers if number in MODULES)
    l4t = _l4t(root)
    jetpack = _jetpack(root, l4t)
    old = soc in ("tegra210", "tegra186") or (jetpack or "").startswith("4")
    return Board(
        model=text(tree / "model") or "Jetson",
        module=" or ".join(dict.fromkeys(MODULES[part] for part in parts)) or None,
        parts=parts,
        soc=soc,
        compute=SOCS.get(soc or ""),
        l4t=l4t,
        jetpack=jetpack,
        remark=POWER_ONLY if old else FROM_A_HOST if (jetpack or "").startswith("5") else None,
        models=not old,
    )


def memory(root: Path = Path("/")) -> dict[str, int | None]:
    """Return the memory that processor and GPU share, in bytes.

    What a process has on the GPU is in none of its own sizes here: only less that is available shows it.
    """
    kept = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text(root / "proc/meminfo"), flags=re.MULTILINE))
    names = {"total_bytes": "MemTotal", "available_bytes": "MemAvailable", "swap_total_bytes": "SwapTotal"}
    return {key: int(kept[name]) * 1024 if name in kept else None for key, name in names.items()}


def _l4t(root: Path) -> str | None:
    """Return the version of L4T: from the release file, or else of the package nvidia-l4t-core."""
    # "# R36 (release), REVISION: 4.3, GCID: ..."
    said = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release"))
    if said:
        numbers = [said.group(1), *said.group(2).split(".")]
    else:
        numbers = _package(root, "nvidia-l4t-core").split("-")[0].split(".")  # "36.4.3-20250107174145"
    numbers = [number for number in numbers if number.isdigit()]
    return ".".join((numbers + ["0"] * 3)[:3]) if numbers else None


def _jetpack(root: Path, l4t: str | None) -> str | None:
    """Return the version of JetPack: of its package where that is installed, or else the one that has this L4T."""
    package = _package(root, "nvidia-jetpack").split("-")[0].split("+")[0]  # "6.2.1+b38"
    if package:
        return package
    return JETPACKS.get(l4t, SERIES.get(l4t.split(".")[0])) if l4t else None


def _package(root: Path, name: str) -> str:
    """Return the version of an installed Debian package; nothing where there is none."""
    program = root / "usr/bin/dpkg-query"
    if not program.is_file():
        return ""
    command = [str(program), "--showformat=${Version}", "--show", name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("ascii", "replace").strip() if done.returncode == 0 else ""
