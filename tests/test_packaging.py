"""What the wheel holds, and what the package asks for."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = CONFIG["tool"]["setuptools"]
LINKED = {"benchmarks", "calibration", "cli"}


def folders_on_disk() -> set[str]:
    found = {"mggc_edge"}
    for top in (ROOT / "mggc_edge", *(ROOT / name for name in LINKED)):
        for path in top.rglob("__init__.py"):
            parts = path.parent.relative_to(ROOT).parts
            if not any((ROOT / Path(*parts[: i + 1])).is_symlink() for i in range(len(parts))):
                found.add(".".join(parts if parts[0] == "mggc_edge" else ("mggc_edge", *parts)))
    return found


def test_the_packages_list_is_what_is_on_disk() -> None:
    assert set(SETUPTOOLS["packages"]) == folders_on_disk()
    assert SETUPTOOLS["packages"] == sorted(SETUPTOOLS["packages"])


def test_linked_rooms_are_relative_links_and_mapped_to_their_folders() -> None:
    for name in LINKED:
        link = ROOT / "mggc_edge" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"  # noqa: PTH115
        assert SETUPTOOLS["package-dir"][f"mggc_edge.{name}"] == name


def test_the_base_install_carries_no_deep_learning_library() -> None:
    base = {line.split(">")[0].split(";")[0].strip() for line in CONFIG["project"]["dependencies"]}
    assert base == {"numpy", "pillow", "rich", "typer", "tomli"}


def test_only_the_extras_for_x86_pull_in_onnxruntime() -> None:
    extras: dict[str, list[str]] = CONFIG["project"]["optional-dependencies"]
    direct = {name for name, lines in extras.items() if any(line.startswith("onnxruntime") for line in lines)}
    through = {
        name for name, lines in extras.items() if any("ort" in line or "cpu]" in line for line in lines)
    } - direct
    assert (direct, through) == ({"ort"}, {"cpu", "dev"})


def test_every_install_hint_names_an_extra_that_exists() -> None:
    from mggc_edge.backends.registry import ENGINES, LIBRARIES

    extras = set(CONFIG["project"]["optional-dependencies"])
    assert {library.extra for library in (*ENGINES, *LIBRARIES)} <= extras


def test_torch_is_pinned_for_development_within_the_range_that_the_package_accepts() -> None:
    from packaging.requirements import Requirement

    (pin,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    (wanted,) = [
        Requirement(line) for line in CONFIG["project"]["optional-dependencies"]["torch"] if line.startswith("torch")
    ]
    assert pin == "torch==2.13.0"
    assert wanted.specifier.contains("2.13.0")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the files that git knows, as a release would be."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        source, target = ROOT / name, folder / "src" / name
        if not name or not (source.is_file() or source.is_symlink()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))  # noqa: PTH115
        else:
            target.write_bytes(source.read_bytes())
    line = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(folder / "src"),
    ]
    subprocess.run(line, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_once_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package in SETUPTOOLS["packages"]
        for path in (ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))).glob("*.py")
    }
    data = {
        f"{package.replace('.', '/')}/{name}" for package, files in SETUPTOOLS["package-data"].items() for name in files
    }
    assert len(set(names)) == len(names)
    assert set(names) == expected | data


def test_the_installed_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import mggc_edge.cli.main as m; print(m.__file__); m.main()"
    )
    line = [sys.executable, "-P", "-c", code, str(tmp_path / "site"), "--version"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    place, version = done.stdout.splitlines()
    assert place.startswith(str(tmp_path / "site"))
    assert version == "mggc-edge 0.1.0"
