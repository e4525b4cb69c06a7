"""Six Jetsons as trees of the kernel's files below a root, with NVIDIA's programs as shell scripts.

Names, units and oddities are those of the boards: a zone of a unit that is off answers nothing, or -256 degrees;
PMIC-Die always says 100; a channel is called NC, or is disabled; channel 7 of an INA3221 is no rail; the device tree of
Orin Nano names two modules; the hot surface of a case is an alert that lowers no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Tuple  # noqa: UP035

import pytest

INA = "sys/class/hwmon"
COOLING = "sys/class/thermal"
CPU = "sys/devices/system/cpu/cpufreq"
ALERTS = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2")

Channel = Tuple[Optional[str], int, int]  # noqa: UP006, UP045  label, mV, mA; boards have Python 3.8


@dataclass(frozen=True)
class Kind:
    """What a board is made of.

    Attributes:
        model, compatible, release: of the device tree and of /etc/nv_tegra_release.
        package: version of nvidia-jetpack, where dpkg knows it.
        monitors: hwmon number -> its channels.
        zones: thermal zone -> its temperature in thousandths of a degree; None where it cannot be read.
        cooling: types of the cooling devices, all at rest.
        policies: first core of each processor cluster -> (lowest, highest) clock in kHz.
        gpu: name of its devfreq, and (lowest, highest) clock in Hz.
        mode: what nvpmodel answers.
        memory_kb: all of it, and what is available.
    """

    model: str
    compatible: tuple[str, ...]
    release: str
    package: str | None
    monitors: Mapping[int, tuple[Channel, ...]]
    zones: Mapping[str, int | None]
    cooling: tuple[str, ...]
    policies: Mapping[int, tuple[int, int]]
    gpu: tuple[str, tuple[int, int]]
    mode: str
    memory_kb: tuple[int, int]
    alerts: tuple[str, ...] = ()
    protection: Mapping[str, int] = field(default_factory=dict)


def _orin(package: str | None, release: str, **changes: object) -> Kind:
    """What Orin NX and Orin Nano share: one monitor, with the input of the module as its first channel."""
    values: dict[str, object] = {
        "release": release,
        "package": package,
        "monitors": {1: (("VDD_IN", 5024, 1480), ("VDD_CPU_GPU_CV", 5024, 328), ("VDD_SOC", 5024, 344))},
        "zones": {
            "cpu-thermal": 51093, "gpu-thermal": 49000, "cv0-thermal": None, "cv1-thermal": None, "cv2-thermal": None,
            "soc0-thermal": 49562, "soc1-thermal": 50000, "soc2-thermal": 49750, "tj-thermal": 51093,
        },
        "cooling": (
            "pwm-fan", "cpufreq-cpu0", "cpufreq-cpu4", "devfreq-17000000.gpu",
            *(f"{name}-throttle-alert" for name in ALERTS), "hot-surface-alert",
        ),
        "policies": {0: (729_600, 1_728_000), 4: (729_600, 1_728_000)},
        "gpu": ("17000000.gpu", (306_000_000, 1_020_000_000)),
        "mode": "NV Power Mode: MAXN_SUPER\n2",
        "memory_kb": (7_802_880, 6_100_000),
        "alerts": ALERTS,
        "protection": {"oc1": 0, "oc2": 0, "oc3": 27},
    }  # fmt: skip
    return Kind(**{**values, **changes})  # type: ignore[arg-type]


KINDS = {
    "nano": Kind(
        model="NVIDIA Jetson Nano Developer Kit",
        compatible=("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"),
        release="# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 2022",
        package="4.6.1-b110",
        monitors={},  # its rails are below iio
        zones={
            "AO-therm": 41500, "CPU-therm": 34000, "GPU-therm": 31000, "PLL-therm": 31500, "PMIC-Die": 100_000,
            "thermal-fan-est": 33000,
        },
        cooling=("pwm-fan", "thermal-cpufreq-0", "gpu-balanced", "cpu-balanced", "tegra-heavy"),
        policies={0: (102_000, 1_479_000)},
        gpu=("57000000.gpu", (76_800_000, 921_600_000)),
        mode="NV Fan Mode:quiet\nNV Power Mode: MAXN\n0",
        memory_kb=(4_059_268, 2_700_000),
    ),
    "xavier-nx": Kind(
        model="NVIDIA Jetson Xavier NX Developer Kit",
        compatible=("nvidia,p3509-0000+p3668-0000", "nvidia,p3668-0000", "nvidia,tegra194"),
        release="# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023",
        package=None,
        monitors={6: (("VDD_IN", 4944, 780), ("VDD_CPU_GPU_CV", 4944, 268), ("VDD_SOC", 4936, 200))},
        zones={
            "CPU-therm": 35000, "GPU-therm": -256_000, "AUX-therm": 33500, "AO-therm": 35500, "PMIC-Die": 100_000,
            "iwlwifi_1": 46000,
        },
        cooling=("pwm-fan", "thermal-cpufreq-0", "thermal-devfreq-0", "cpu-throttle-alert", "gpu-throttle-alert"),
        policies={0: (115_200, 1_907_200)},
        gpu=("17000000.gv11b", (114_750_000, 1_109_250_000)),
        mode="NV Power Mode: MODE_20W_6CORE\n8",
        memory_kb=(7_109_000, 4_900_000),
    ),
    "orin-nano": _orin(
        None,
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025",
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        compatible=("nvidia,p3768-0000+p3767-0003", "nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005",
                    "nvidia,tegra234"),
    ),
    "orin-nx": _orin(
        "6.2.1+b38",
        "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 2025",
        model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        compatible=("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        policies={0: (729_600, 1_984_000), 4: (729_600, 1_984_000)},
        memory_kb=(16_000_000, 13_000_000),
    ),
    "agx-orin": _orin(
        "6.1+b123",
        "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 2024",
        model="NVIDIA Jetson AGX Orin Developer Kit",
        compatible=("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        monitors={
            3: (("VDD_GPU_SOC", 19_840, 160), ("VDD_CPU_CV", 19_856, 60), ("VIN_SYS_5V0", 4968, 980)),
            4: (("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4968, 80), (None, 0, 0)),
        },
        policies={0: (729_600, 2_201_600), 4: (729_600, 2_201_600), 8: (729_600, 2_201_600)},
        gpu=("17000000.gpu", (306_000_000, 1_300_500_000)),
        mode="NV Power Mode: MAXN\n0",
        memory_kb=(64_000_000, 60_000_000),
    ),
    "thor": _orin(
        None,
        "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: Wed Dec 31 2025",
        model="NVIDIA Jetson AGX Thor Developer Kit",
        compatible=("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        # The GPU is off, and its rail a little below zero.
        monitors={3: (("VDD_GPU", 19_864, -20), ("VDD_CPU_SOC_MSS", 19_856, 300), ("VIN_SYS_5V0", 5000, 1300))},
        zones={"cpu-thermal": 53700, "gpu-thermal": None, "soc012-thermal": 55100, "soc345-thermal": 53700,
               "tj-thermal": 55100},
        cooling=("pwm-fan", "cpufreq-cpu0", "devfreq-gpu-gpc-0", "cpu-throttle-alert", "gpu-throttle-alert"),
        policies={0: (972_000, 2_601_000)},
        gpu=("gpu-gpc-0", (306_000_000, 1_575_000_000)),
        mode="NV Power Mode: 120W\n1",
        memory_kb=(128_000_000, 120_000_000),
        alerts=("cpu", "gpu"),
    ),
}  # fmt: skip

NVPMODEL = """#!/bin/sh
[ "$*" = "-q" ] || { echo "NVPM ERROR: not for tests"; exit 1; }
cat "$(dirname "$0")/../../mode"
"""
# Stores, locks and restores as NVIDIA's does: "path:value" lines, never over a file that is there, and the lowest
# clocks set to the highest. `fails` holds the action that fails, and with which exit code.
CLOCKS = """#!/bin/sh
root=$(cd "$(dirname "$0")/../.." && pwd)
echo "$*" >> "$root/calls"
action=${1:-lock}
[ -e "$root/slow" ] && sleep 0.4
if [ -e "$root/fails" ] && [ "$action" = "$(cut -d' ' -f1 "$root/fails")" ]; then
    printf '\\033[0;31mError: Failed to %s\\033[0m\\n' "$action"; exit "$(cut -d' ' -f2 "$root/fails")"
fi
if [ "$action" = --store ]; then
    [ -e "$2" ] && { echo "File $2 already exists. Can I overwrite it? Y/N:"; read answer || exit 1; }
    for file in "$root"/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq "$root"/sys/class/devfreq/*/min_freq; do
        echo "$file:$(cat "$file")" >> "$2"
    done
elif [ "$action" = --restore ]; then
    [ -e "$2" ] || { echo "Error: $2 file not found !"; exit 1; }
    while IFS=: read -r file value; do echo "$value" > "$file"; done < "$2"
else
    for file in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
        cat "$file/scaling_max_freq" > "$file/scaling_min_freq"
    done
    for file in "$root"/sys/class/devfreq/*; do cat "$file/max_freq" > "$file/min_freq"; done
fi
exit 0
"""
TEGRASTATS = """#!/bin/sh
[ "$1" = --interval ] || exit 1
while :; do
    cat "$(dirname "$0")/../../line"
    sleep "$(printf '0.%03d' "$2")"
done
"""
DPKG = """#!/bin/sh
for name; do :; done
cat "$(dirname "$0")/../../packages/$name" 2> /dev/null || exit 1
"""


class Tree:
    """The files of a board below `root`."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, KINDS[kind]

    def write(self, name: str, value: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")

    def read(self, name: str) -> str:
        return (self.root / name).read_text().strip()

    def program(self, name: str, script: str) -> None:
        self.write(name, script.rstrip("\n"))
        (self.root / name).chmod(0o755)

    def cool(self, kind: str, state: int) -> None:
        """Set the state of a cooling device."""
        number = self.kind.cooling.index(kind)
        self.write(f"{COOLING}/cooling_device{number}/cur_state", state)

    def calls(self) -> list[str]:
        """What jetson_clocks was called with."""
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []


def make(root: Path, name: str) -> Tree:
    """Write the files of a board."""
    tree, kind = Tree(root, name), KINDS[name]
    tree.write("proc/device-tree/model", f"{kind.model}\0")
    tree.write("proc/device-tree/compatible", "".join(f"{each}\0" for each in kind.compatible))
    tree.write("etc/nv_tegra_release", kind.release)
    total, available = kind.memory_kb
    tree.write("proc/meminfo", f"MemTotal:       {total} kB\nMemFree:  9 kB\nMemAvailable:   {available} kB\n")
    for number, channels in kind.monitors.items():
        _monitor(tree, number, channels)
    if name == "nano":
        for number, (label, milliwatts) in enumerate((("POM_5V_IN", 3478), ("POM_5V_GPU", 840), ("POM_5V_CPU", 643))):
            folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
            tree.write(f"{folder}/rail_name_{number}", label)
            tree.write(f"{folder}/in_power{number}_input", milliwatts)
    if name == "thor":
        for file, value in (("name", "ina238"), ("label", "VIN"), ("power1_input", 20_986_000)):
            tree.write(f"{INA}/hwmon10/{file}", value)
    tree.write(f"{INA}/hwmon0/name", "pwmfan")
    for zone, (label, temperature) in enumerate(kind.zones.items()):
        tree.write(f"{COOLING}/thermal_zone{zone}/type", label)
        if temperature is not None:
            tree.write(f"{COOLING}/thermal_zone{zone}/temp", temperature)
    for number, each in enumerate(kind.cooling):
        tree.write(f"{COOLING}/cooling_device{number}/type", each)
        # The fan turns, and the case may be hot: neither lowers a clock.
        tree.write(f"{COOLING}/cooling_device{number}/cur_state", int(each in ("pwm-fan", "hot-surface-alert")))
    for alert in kind.alerts:
        tree.write(f"sys/devices/platform/{alert}-throttle-alert/thermal_trip_event", 0)
    for counter, count in kind.protection.items():
        tree.write(f"{INA}/hwmon2/{counter}_event_cnt", count)
        tree.write(f"{INA}/hwmon2/{counter}_throt_en", 1)
    _clocks(tree)
    tree.write("mode", kind.mode)
    tree.program("usr/sbin/nvpmodel", NVPMODEL)
    tree.program("usr/bin/jetson_clocks", CLOCKS)
    tree.program("usr/bin/tegrastats", TEGRASTATS)
    tree.program("usr/bin/dpkg-query", DPKG)
    if kind.package is not None:
        tree.write("packages/nvidia-jetpack", kind.package)
    return tree


def _monitor(tree: Tree, number: int, channels: tuple[Channel, ...]) -> None:
    folder = f"{INA}/hwmon{number}"
    tree.write(f"{folder}/name", "ina3221")
    tree.write(f"{folder}/update_interval", 430)  # of 512 samples of three channels
    tree.write(f"{folder}/samples", 512)
    for channel, (label, volts, amperes) in enumerate(channels, start=1):
        if label is not None:
            tree.write(f"{folder}/in{channel}_label", label)
        tree.write(f"{folder}/in{channel}_enable", 1)
        tree.write(f"{folder}/in{channel}_input", volts)
        tree.write(f"{folder}/curr{channel}_input", amperes)
    tree.write(f"{folder}/in7_label", "sum of shunt voltages")
    tree.write(f"{folder}/in7_input", 760)


def _clocks(tree: Tree) -> None:
    for core, (lowest, highest) in tree.kind.policies.items():
        for file, value in (
            ("scaling_min_freq", lowest), ("scaling_max_freq", highest), ("scaling_cur_freq", lowest),
            ("scaling_governor", "schedutil"),
        ):  # fmt: skip
            tree.write(f"{CPU}/policy{core}/{file}", value)
    name, (lowest, highest) = tree.kind.gpu
    for file, value in (("min_freq", lowest), ("max_freq", highest), ("cur_freq", lowest)):
        tree.write(f"sys/class/devfreq/{name}/{file}", value)
    tree.write("sys/class/devfreq/15340000.vic/min_freq", 1)  # not a GPU
    tree.write("sys/class/devfreq/15340000.vic/max_freq", 2)


every_board = pytest.mark.parametrize("name", list(KINDS))
