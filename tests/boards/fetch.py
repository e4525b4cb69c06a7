"""Fetch what tests of boards run: an arm64 Python under qemu, and the engines of an old Python. No root is needed.

    python tests/boards/fetch.py FOLDER

Debian's packages come through apt with a state of its own, are checked against Debian's keys, and unpacked by dpkg;
wheels come through pip. What is there already is not fetched again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
EMULATOR, EMULATOR_PROGRAM = "qemu-user-static", "qemu-aarch64-static"
# Python 3.11 of that suite, and the libraries that its standard library, numpy and ONNX Runtime load.
PACKAGES = (
    "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal",
    "libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libssl3", "libstdc++6", "zlib1g",
)  # fmt: skip
# The newest ONNX Runtime that JetPack 6 can have; and the last one for Python 3.8, which is JetPack 5's.
ARM64_WHEELS, OLD_WHEELS = ("numpy==2.2.6", "onnxruntime==1.23.2"), ("numpy==1.24.4", "onnxruntime==1.19.2")
DONE = ".complete"


def main(folder: Path) -> None:
    """Fetch what is not there."""
    arm64, old = folder / "arm64", folder / "python3.8"
    if not (arm64 / DONE).exists():
        shutil.rmtree(arm64, ignore_errors=True)
        fetch_packages(arm64)
        fetch_wheels(arm64 / "wheels", ARM64_WHEELS, "3.11", "aarch64")
        (arm64 / DONE).touch()
    if not (old / DONE).exists():
        shutil.rmtree(old, ignore_errors=True)
        fetch_wheels(old, OLD_WHEELS, "3.8", "x86_64")
        (old / DONE).touch()


def fetch_packages(folder: Path) -> None:
    """Unpack the emulator and the root that it runs in."""
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise SystemExit(f"there is no {program} here: this needs Debian, or a container of it")
    if not KEYRING.exists():
        raise SystemExit(f"there is no {KEYRING}: install debian-archive-keyring")
    host = run(["dpkg", "--print-architecture"]).strip()
    apt, root, packages = folder / "apt", folder / "root", folder / "packages"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    for path in (root, packages, folder / "emulator"):
        path.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
    config = apt / "apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "{apt}/sources.list";\nDir::Etc::sourceparts "-";\nDir::State "{apt}/state";\n'
        f'Dir::State::status "{apt}/status";\nDir::Cache "{apt}/cache";\nAPT::Sandbox::User "";\n'
        f'APT::Architecture "{host}";\nAPT::Architectures {{ "{host}"; "arm64"; }};\nAcquire::Languages "none";\n'
        'Acquire::Retries "3";\n'
    )
    where = {**os.environ, "APT_CONFIG": str(config)}
    run(["apt-get", "-qq", "update"], env=where)
    wanted = [f"{EMULATOR}:{host}", *(f"{name}:arm64" for name in PACKAGES)]
    run(["apt-get", "-qq", "download", *wanted], env=where, cwd=packages)
    for path in sorted(packages.iterdir()):
        run(["dpkg", "-x", str(path), str(folder / "emulator" if path.name.startswith(EMULATOR) else root)])
    for path in (apt, packages):
        shutil.rmtree(path)
    for path in (folder / "emulator/usr/bin").iterdir():  # those of other processors
        if path.name != EMULATOR_PROGRAM:
            path.unlink()


def fetch_wheels(folder: Path, names: Sequence[str], python: str, machine: str) -> None:
    """Unpack wheels for another Python or machine into a folder."""
    folder.mkdir(parents=True)
    platforms = [f"--platform=manylinux{kind}_{machine}" for kind in ("2014", "_2_17", "_2_27", "_2_28")]
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    run([*line, "--only-binary=:all:", f"--python-version={python}", *platforms, f"--dest={folder}", *names])
    for path in list(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        path.unlink()


def run(line: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program and return what it prints; end with what it says where it fails."""
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{line[0]} {line[1]} failed:\n{done.stderr.strip()[-1000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
