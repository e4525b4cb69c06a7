"""Files on a device: under their hash, whole or not at all, and not without end."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mggc_edge.benchmarks.agent.store import Store, StoreError

DATA = b"a model"
NAME = f"{hashlib.sha256(DATA).hexdigest()}.onnx"


def sent(store: Store, data: bytes, ending: str = "onnx") -> str:
    name = f"{hashlib.sha256(data).hexdigest()}.{ending}"
    store.put(name, data)
    store.keep(name)
    return name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_sent_in_parts_is_there_when_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.missing([(NAME, len(DATA))]) == [NAME]
    assert store.put(NAME, DATA[:3]) == 3
    assert not (tmp_path / NAME).exists()
    assert store.put(NAME, DATA[3:]) == len(DATA)
    store.keep(NAME)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert store.missing([(NAME, len(DATA))]) == []
    store.close()
    assert names(tmp_path) == [NAME]


def test_what_another_process_of_that_number_left_is_not_part_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / f"part-{os.getpid()}-{NAME}").write_bytes(b"of old ")
    assert [store.put(NAME, DATA[:3]), store.put(NAME, DATA[3:])] == [3, len(DATA)]
    store.keep(NAME)
    assert (tmp_path / NAME).read_bytes() == DATA


def test_what_is_not_what_its_name_says_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(NAME, b"a muddle")
    with pytest.raises(StoreError, match="is something else"):
        store.keep(NAME)
    (tmp_path / NAME).write_bytes(b"")  # as after a power cut
    assert store.missing([(NAME, len(DATA))]) == [NAME]
    store.put(NAME, DATA[:2])
    store.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../x.onnx", "x.onnx", f"{'0' * 64}.sh", f"/{'0' * 64}.onnx", f"{'0' * 64}.onnx\n"])
def test_names_that_are_no_hashes_are_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    for ask in (lambda: store.put(name, b"x"), lambda: store.keep(name), lambda: store.missing([(name, 1)])):
        with pytest.raises(StoreError, match="a name that is no hash"):
            ask()


def test_a_disk_without_room_is_noticed_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(StoreError, match="has 5 bytes left, and 7 are needed") as caught:
        store.missing([(NAME, len(DATA))])
    assert caught.value.kind == "full"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EIO, "store")])
def test_a_disk_that_fails_meanwhile_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    store = Store(tmp_path)
    store.put(NAME, DATA[:3])

    def fails(*words: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(StoreError) as caught:
        store.put(NAME, DATA[3:])
    assert caught.value.kind == kind
    assert [name for name in names(tmp_path) if name.startswith("part")] == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file")


def test_beyond_the_bound_the_oldest_goes_that_nobody_needs(tmp_path: Path) -> None:
    first = Store(tmp_path)
    old, older, needed, recent = (sent(first, bytes([number]) * 10, "ort") for number in range(4))
    (tmp_path / "notes.txt").write_text("mine" * 10)
    now = time.time()
    for name, age in ((old, 2e4), (older, 3e4), (needed, 4e4)):
        os.utime(tmp_path / name, (now - age, now - age))
    second = Store(tmp_path, needed=(needed,), kept_bytes=25)
    second.missing([])
    assert older not in names(tmp_path)
    assert {old, needed, recent, "notes.txt"} <= set(names(tmp_path))
    third = Store(tmp_path, kept_bytes=0)
    third.missing([])  # what was asked for in the last hour may be another session's
    assert {recent, "notes.txt"} <= set(names(tmp_path))
    assert not {old, needed} & set(names(tmp_path))


def test_what_killed_sessions_left_goes_after_a_day(tmp_path: Path) -> None:
    old = (f"part-1-{NAME}", "part-2-agent", "work-2-agent")
    theirs = ("particle", "part-1-of-2", "work-2024", "work-2024-notes")  # the folder is any that the user names
    for name in (*old, *theirs, f"part-3-{NAME}"):
        (tmp_path / name).mkdir() if name.startswith("work") else (tmp_path / name).write_text("")
    for name in (*old, *theirs):
        os.utime(tmp_path / name, (0, 0))
    store = Store(tmp_path)
    assert store.work.name == f"work-{os.getpid()}-agent"
    store.close()
    assert names(tmp_path) == sorted([*theirs, f"part-3-{NAME}"])


def test_what_a_worker_wrote_is_read_and_nothing_outside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.work / "profile.json").write_bytes(b"0123456789")
    assert store.read("profile.json", 2, 3) == b"234"
    assert store.read("profile.json", 10, 3) == b""
    with pytest.raises(StoreError, match="cannot be used"):
        store.read("../../profile.json/..", 0, 3)
