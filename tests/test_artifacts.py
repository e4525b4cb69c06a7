"""What is written is whole or not there, and its manifest says where it came from."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import mggc_edge
from mggc_edge.artifacts import (
    MANIFEST_FILE,
    MANIFEST_SCHEMA,
    OnnxArtifact,
    atomic_path,
    check_output_folder,
    file_entry,
    new_folder,
    point_latest,
    read_json,
    read_manifest,
    sha256_of,
    tool_versions,
    write_json,
    write_manifest,
    writing,
)
from mggc_edge.errors import ArtifactError, OutputError
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import save_network
from mggc_edge.tensors import TensorSpec

NO_SPACE = "free some space, or choose a folder on another disk"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that differs from every default."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- one file ---


def test_a_file_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # so that the renaming is atomic
        assert temporary.name.startswith(".file.txt.")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, OSError, MemoryError])
def test_whatever_goes_wrong_the_old_file_stays_and_nothing_else(kind: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise kind

    with pytest.raises((kind, OutputError)):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files open within Python's own calls
@pytest.mark.parametrize("existing", [False, True])
def test_ctrl_c_at_any_line_leaves_the_old_or_the_new_and_nothing_else(existing: bool, tmp_path: Path) -> None:
    """Ctrl-C comes at the n-th line that Python runs while a file (and a folder) is written, for every n."""

    def write(place: Path) -> None:
        write_json(place / "file.json", {"new": True})
        with new_folder(place / "run") as stage:
            (stage / "a.txt").write_text("new")

    def interrupted_at(line: int, place: Path) -> bool:
        """Return whether there was such a line."""
        seen = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal seen
            seen += event == "line"
            if seen == line and event == "line":
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            write(place)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    (tmp_path / "runs").mkdir()
    line = 0
    while True:
        line += 1
        place = tmp_path / f"runs/{line}"
        place.mkdir()
        if existing:
            (place / "file.json").write_text("old")
        if not interrupted_at(line, place):
            break
        left = names(place)
        assert set(left) <= {"file.json", "run"}, line
        if "file.json" in left:
            assert (place / "file.json").read_text() in ("old", '{\n  "new": true\n}\n')
        if "run" in left:
            assert names(place / "run") == ["a.txt"]
    assert line > 40  # it looked into the calls, not only at the lines of `write` above


def test_an_older_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("much longer than the new one")
    with path.open() as reader:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "much longer than the new one"  # whoever had it open sees one or the other
    assert path.read_text() == "new"


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    write_json(tmp_path / "a.json", {})
    with new_folder(tmp_path / "run") as stage:
        write_json(stage / "b.json", {})
    assert mode(tmp_path / "a.json") == 0o666 & ~umask == 0o640
    assert mode(tmp_path / "run" / "b.json") == 0o640
    assert mode(tmp_path / "run") == 0o777 & ~umask == 0o750
    assert os.umask(umask) == umask  # asking for it has not changed it


# --- what the operating system says ---


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, NO_SPACE),
        (errno.EDQUOT, NO_SPACE),
        (errno.EROFS, "choose a folder that can be written"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.EPERM, "choose a folder that you may write to"),
        (errno.EIO, None),
    ],
)
def test_every_failure_to_write_becomes_a_sentence_with_a_way_out(number: int, hint: str | None) -> None:
    path = Path("out", "file.txt")
    with pytest.raises(OutputError) as caught, writing(path):
        raise OSError(number, os.strerror(number), "some/inner/file")
    assert caught.value.message == f"'{path}' cannot be written: {os.strerror(number)}"
    assert caught.value.hint == hint
    assert isinstance(caught.value.__cause__, OSError)


def test_errors_that_are_not_of_writing_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), writing(Path("x")):
        raise ZeroDivisionError


def test_a_read_only_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("os.open", read_only)
    monkeypatch.setattr("os.mkdir", read_only)
    with pytest.raises(OutputError) as caught, atomic_path(tmp_path / "file.txt"):
        pass
    assert str(caught.value) == (
        f"'{tmp_path / 'file.txt'}' cannot be written: Read-only file system (choose a folder that can be written)"
    )
    with pytest.raises(OutputError, match="Read-only file system"), new_folder(tmp_path / "run"):
        pass
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fill_up() -> None:
        with atomic_path(path) as temporary, writing(path):
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_text("too much")

    with pytest.raises(OutputError) as caught:
        fill_up()
    assert caught.value.message == f"'{path}' cannot be written: No space left on device"
    assert caught.value.hint == NO_SPACE
    assert (path.read_text(), names(tmp_path)) == ("old", ["file.txt"])


def test_a_disk_that_is_full_only_when_the_file_is_synced_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_json(tmp_path / "file.json", {})
    assert names(tmp_path) == []


def test_a_path_below_a_file_and_a_path_that_is_a_folder_are_output_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_json(path, {})
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from mggc_edge.artifacts import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    assert path.read_text() == "old"


def test_a_network_saved_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_network(Network(resnet_spec(blocks=1, ngf=4)), tmp_path / "file" / "saved")


# --- JSON ---


def test_json_is_indented_text_in_any_language(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "één 写真", "none": None, "numbers": [1, 0.5]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "name": "één 写真",\n  "none": null,\n  "numbers": [\n    1,\n    0.5\n  ]\n}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_nan_and_infinity_and_leaves_the_old_file(value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"psnr": value})
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.json"])


# --- a folder ---


def test_a_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    with new_folder(run) as stage:
        (stage / "file").write_text("x")
        assert (stage.parent, run.exists()) == (run.parent, False)
        assert stage.name.startswith(".first.")
    assert (names(run), names(run.parent)) == (["file"], ["first"])


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_that_was_not_finished_leaves_nothing(
    kind: type[BaseException], existing: bool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    if existing:
        run.mkdir()

    def interrupted() -> None:
        with new_folder(run) as stage:
            (stage / "deep").mkdir()
            (stage / "deep" / "file").write_text("half")
            raise kind

    with pytest.raises(kind):
        interrupted()
    assert names(tmp_path) == (["run"] if existing else [])
    assert not existing or names(run) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with new_folder(run) as stage:
        (stage / "file").write_text("x")
    assert names(run) == ["file"]


def test_an_empty_folder_where_we_stand_is_filled_and_stays_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino  # a mount point, or where a shell stands, cannot be put another folder over
    with new_folder(Path()) as stage:
        (stage / MANIFEST_FILE).write_text("{}")
        (stage / "export").mkdir()
        (stage / "export/a.onnx").write_text("a")
    assert tmp_path.stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "manifest.json"]
    assert Path("export/a.onnx").read_text() == "a"


def test_a_link_to_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with new_folder(tmp_path / "link") as stage:
        (stage / "a").write_text("a")
    assert (tmp_path / "there/a").read_text() == "a"


def test_an_empty_folder_is_empty_again_when_the_work_fails(tmp_path: Path) -> None:
    def failing() -> None:
        with new_folder(tmp_path) as stage:
            (stage / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")
    with pytest.raises(OutputError) as caught, new_folder(tmp_path):
        pytest.fail("the block must not run")
    assert caught.value.message == f"'{tmp_path}' has other content, and nothing is overwritten"
    assert caught.value.hint == "choose a new or an empty folder"
    assert names(tmp_path) == [".hidden"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError) as caught, new_folder(tmp_path / "run"):
        pytest.fail("the block must not run")
    assert str(caught.value) == f"'{tmp_path / 'run'}' is a file, not a folder (choose another output folder)"
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_that_was_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def overtaken() -> None:
        with new_folder(run) as stage:
            (stage / "file").write_text("ours")
            run.mkdir()
            (run / "file").write_text("theirs")

    with pytest.raises(OutputError, match="cannot be written"):
        overtaken()
    assert (run / "file").read_text() == "theirs"
    assert names(tmp_path) == ["run"]


def test_checking_an_output_folder_creates_nothing(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "a" / "b")
    assert names(tmp_path) == []


# --- latest ---


def test_latest_points_to_the_newest_run_and_moves_with_its_folder(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("first", "deep/second"):
        (runs / name).mkdir(parents=True)
        point_latest(runs / name, runs)
    assert (runs / "latest").readlink() == Path("deep/second")  # relative: the folder can be moved
    runs.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").resolve() == tmp_path / "moved" / "deep" / "second"
    assert names(tmp_path / "moved") == ["deep", "first", "latest"]


def test_a_latest_whose_run_is_gone_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    point_latest(tmp_path / "run", tmp_path)
    assert (tmp_path / "latest").readlink() == Path("run")


def test_somebodys_own_folder_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    point_latest(tmp_path / "run", tmp_path)
    assert (tmp_path / "latest").is_dir()
    assert not (tmp_path / "latest").is_symlink()


def test_a_latest_that_cannot_be_made_costs_nothing(tmp_path: Path) -> None:
    assert not point_latest(tmp_path / "not there" / "run", tmp_path / "not there")


def test_an_error_that_has_nothing_to_do_with_writing_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []


# --- hashes and manifests ---


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(2**20 * 2 + 17)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_an_entry_has_a_path_from_the_root_hash_size_and_parent(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"abc")
    assert file_entry(tmp_path / "deep" / "file", tmp_path, parent="p") == {
        "path": "deep/file",
        "sha256": hashlib.sha256(b"abc").hexdigest(),
        "size_bytes": 3,
        "parent": "p",
    }


def test_an_artifact_describes_its_file(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"abc")
    tensor = TensorSpec("input", "float32", (None, 3, 8, 8))
    sha256 = hashlib.sha256(b"abc").hexdigest()
    artifact = OnnxArtifact(tmp_path / "g.onnx", sha256, 3, (tensor,), (tensor,), "fp32", "p", {"opset": 20})
    described = {"name": "input", "dtype": "float32", "shape": [None, 3, 8, 8]}
    assert artifact.to_json(tmp_path) == {
        **file_entry(tmp_path / "g.onnx", tmp_path, parent="p"),
        "precision": "fp32",
        "inputs": [described],
        "outputs": [described],
        "settings": {"opset": 20},
    }


@pytest.mark.parametrize(
    ("sha256", "precision", "message"),
    [("ab", "fp32", "'ab' is no sha256"), ("ab" * 32, "fp8", "'fp8' is no precision (fp32, fp16 or int8)")],
)
def test_an_artifact_that_makes_no_sense_is_refused(sha256: str, precision: str, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        OnnxArtifact(Path("g.onnx"), sha256, 3, (), (), precision, None)
    assert str(caught.value) == message


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    files = [file_entry(tmp_path / "file", tmp_path)]
    write_manifest(tmp_path, command="export", files=files, settings={"a": 1}, source_sha256="s")
    assert read_manifest(tmp_path) == {
        "schema": MANIFEST_SCHEMA,
        "command": "export",
        "tools": tool_versions(),
        "settings": {"a": 1},
        "files": files,
        "source_sha256": "s",
    }


def test_tool_versions_name_what_is_there_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mggc_edge.artifacts.TOOLS", ("numpy", "no-such-library"))
    versions = tool_versions()
    assert versions == {
        "mggc-edge": mggc_edge.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": np.__version__,
        "no-such-library": None,
    }


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert caught.value.message == f"'{tmp_path}' is no run folder: it has no manifest.json"


@pytest.mark.parametrize(
    "text",
    ["{}", '{"files": []}', '{"schema": "mggc-edge/manifest/2", "files": []}',
     json.dumps({"schema": MANIFEST_SCHEMA, "files": {}}), json.dumps({"schema": MANIFEST_SCHEMA})],
)  # fmt: skip
def test_a_document_of_another_kind_is_no_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert caught.value.message == f"'{tmp_path / MANIFEST_FILE}' is damaged, or not a manifest of mggc-edge"


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "3"])
def test_a_document_that_is_no_object_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert caught.value.message == f"'{tmp_path / MANIFEST_FILE}' is damaged: it holds no JSON object"


def test_a_document_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"a": 1}')
    assert read_json(path, max_bytes=8) == {"a": 1}
    with pytest.raises(ArtifactError, match="cannot be read: it is larger than") as caught:
        read_json(path, max_bytes=7, hint="remove it")
    assert caught.value.hint == "remove it"
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "no text", "deep"])
def test_a_manifest_that_is_no_json_cannot_be_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"manifest\.json' cannot be read: "):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_copied_run_has_the_same_manifest(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as stage:
        (stage / "file").write_bytes(b"abc")
        write_manifest(stage, command="x", files=[file_entry(stage / "file", stage)], settings={})
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (entry,) = read_manifest(tmp_path / "copy")["files"]
    assert sha256_of(tmp_path / "copy" / entry["path"]) == entry["sha256"]
