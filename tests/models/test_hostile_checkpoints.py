"""Checkpoints that are damaged, lie, or would run code are refused: nothing runs and little memory is taken."""

from __future__ import annotations

import collections
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mggc_edge.errors import CheckpointError
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from tests.models import checkpoint_files
from tests.models.checkpoint_files import (
    FORMATS,
    FakeStorage,
    FakeTensor,
    Format,
    assert_loads,
    legacy_of,
    pickled,
    safetensors_of,
    saved,
    state_of,
    zip_of,
    zipped,
)
from tests.models.model_helpers import network_of

WEIGHTS_ALONE = "save the weights alone: torch.save(net.state_dict(), path)"
COMPLETE = "is the file complete?"
DISTRUST = "do not trust this file"
MKDIR = f"{os.mkdir.__module__}.mkdir"
TOO_LARGE = "a tensor is larger than what the file holds of it"


def refusal(path: Path, **options: Any) -> CheckpointError:
    """The error with which the file is refused, without the file's name, which it must begin with."""
    error = checkpoint_files.refusal(path, **options)
    assert error.message.startswith(f"'{path}'")
    return CheckpointError(error.message.removeprefix(f"'{path}': "), error.hint)


@pytest.fixture
def network() -> Network:
    return network_of(patchgan_spec(ndf=2, layers=1), dtype=torch.float32)


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


class InfectedModule(nn.Module):
    """A whole module that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.model = nn.Conv2d(1, 1, 1)
        self.payload = Payload(marker)


# --- code ---


def test_the_payload_of_these_tests_is_live(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("where", ["whole", "first", "last", "deep", "key"])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(
    network: Network, where: str, form: Format, tmp_path: Path
) -> None:
    marker, state = tmp_path / "marker", state_of(network)
    payload = Payload(marker)
    contents: dict[str, Any] = {
        "whole": payload,
        "first": {"payload": payload, **state},
        "last": {**state, "payload": payload},
        "deep": {"state_dict": state, "hyper_parameters": [{"callback": [payload]}]},
        "key": dict[Any, Any]([*state.items(), (payload, 1)]),
    }
    error = refusal(saved(tmp_path / "net.pth", contents[where], form))
    assert error.message == (
        f"refused: loading this file would run or build '{MKDIR}', and a checkpoint may only hold tensors"
    )
    assert error.hint == WEIGHTS_ALONE
    assert not marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickled_module_is_refused_and_runs_nothing(form: Format, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    error = refusal(saved(tmp_path / "net.pth", InfectedModule(marker), form))
    assert error.message == (
        f"refused: loading this file would run or build '{__name__}.InfectedModule', and a checkpoint may only hold "
        "tensors"
    )
    assert error.hint == WEIGHTS_ALONE
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_is_refused_and_runs_nothing(protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "net.pth"
    path.write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    expected = {
        0: f"'{path}' is no checkpoint",
        1: f"'{path}' is no checkpoint",
        2: f"refused: loading this file would run or build '{MKDIR}', and a checkpoint may only hold tensors",
        3: "refused: this is a Python pickle that torch.save did not write, and it is not run",
        4: "refused: this is a Python pickle that torch.save did not write, and it is not run",
        5: "refused: this is a Python pickle that torch.save did not write, and it is not run",
    }
    if protocol == 3:  # the names are those of protocol 2
        expected[3] = expected[2]
    assert refusal(path).message == expected[protocol]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"cos\nsystem\n(X\x04\0\0\0truetR.", "os.system"),
        (b"cbuiltins\neval\n(X\x01\0\0\x001tR.", "builtins.eval"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "torch._utils._rebuild_sparse_tensor"),
        (b"ccollections\nOrderedDict.update\n.", "collections.OrderedDict.update"),
        (b"cbuiltins\nset\n.", "builtins.set"),
    ],
)
def test_names_that_are_not_on_the_list_are_refused(body: bytes, name: str, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + body, []))
    assert refusal(path).message == (
        f"refused: loading this file would run or build '{name}', and a checkpoint may only hold tensors"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"i" + b"os\nsystem\n.",  # INST
        b"(cos\nsystem\no.",  # OBJ
        b")\x81.",  # NEWOBJ
        b"\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x82\x01.",  # EXT1
        b"I1\n.",
        b"}\x94.",  # MEMOIZE
        b"\x8f.",  # EMPTY_SET
        b"2.",  # DUP
    ],
)
def test_opcodes_that_torch_does_not_write_are_refused(body: bytes, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + body, []))
    error = refusal(path)
    assert error.hint == WEIGHTS_ALONE
    assert error.message.startswith("refused: ")


@pytest.mark.parametrize(
    "value", [torch.zeros(2, 2).to_sparse(), collections.Counter("ab"), {1, 2}, 1j, torch.nn.Identity()], ids=repr
)
def test_objects_beside_the_weights_that_are_no_plain_data_are_refused(
    network: Network, value: object, tmp_path: Path
) -> None:
    error = refusal(saved(tmp_path / "net.pth", {"extra": value, **state_of(network)}))
    assert error.message.startswith("refused: loading this file would run or build '")
    assert error.hint == WEIGHTS_ALONE


# --- claims ---

ONE_GIGABYTE = 10**9

CLAIMS: dict[str, tuple[Any, str, str | None]] = {
    "more elements than the storage": (FakeTensor((ONE_GIGABYTE,), (1,), FakeStorage(4)), TOO_LARGE, DISTRUST),
    "one element more than the storage": (FakeTensor((5,), (1,), FakeStorage(4)), TOO_LARGE, DISTRUST),
    "an offset beyond the storage": (FakeTensor((1,), (1,), FakeStorage(4), 4), TOO_LARGE, DISTRUST),
    "a stride beyond the storage": (FakeTensor((2,), (4,), FakeStorage(4)), TOO_LARGE, DISTRUST),
    "stride zero": (FakeTensor((ONE_GIGABYTE,), (0,), FakeStorage(4)), TOO_LARGE, DISTRUST),
    "stride zero in one of two dimensions": (FakeTensor((2, 4), (0, 1), FakeStorage(4)), TOO_LARGE, DISTRUST),
    "a storage larger than the file": (FakeTensor((4,), (1,), FakeStorage(ONE_GIGABYTE)), TOO_LARGE, COMPLETE),
    "a storage one element larger than the file": (FakeTensor((4,), (1,), FakeStorage(5)), TOO_LARGE, COMPLETE),
    "elements twice as long": (FakeTensor((4,), (1,), FakeStorage(4, kind="DoubleStorage")), TOO_LARGE, COMPLETE),
    **{
        f"{what} {value!r}": (tensor, "this checkpoint has a tensor with an impossible size", None)
        for value in (-1, 2**63, True, 1.0, "1", None)
        for what, tensor in (
            ("size", FakeTensor((value,), (1,), FakeStorage(4))),
            ("stride", FakeTensor((1,), (value,), FakeStorage(4))),
            ("offset", FakeTensor((1,), (1,), FakeStorage(4), value)),
            ("elements", FakeTensor((1,), (1,), FakeStorage(value))),
        )
    },
    "a size without a stride": (
        FakeTensor((1, 1), (1,), FakeStorage(4)), "this checkpoint has a tensor that makes no sense", None,
    ),
    "no storage": (FakeTensor((1,), (1,), "storage"), "this checkpoint has a tensor that makes no sense", None),
    "nine dimensions": (
        FakeTensor((1,) * 9, (1,) * 9, FakeStorage(4)), "this checkpoint has a tensor with 9 dimensions", None,
    ),
    "ten thousand dimensions": (
        FakeTensor((1,) * 10_000, (1,) * 10_000, FakeStorage(4)),
        "this checkpoint has a tensor with 10000 dimensions",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_tensor_that_claims_what_is_not_in_the_file_is_refused(name: str, tmp_path: Path) -> None:
    tensor, message, hint = CLAIMS[name]
    error = refusal(zip_of(tmp_path / "net.pth", {"model.0.weight": tensor}, bytes(16)))
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize("name", sorted(name for name in CLAIMS if not name.startswith(("elements", "a storage"))))
def test_a_tensor_of_the_older_format_that_claims_what_is_not_in_the_file_is_refused(name: str, tmp_path: Path) -> None:
    tensor, message, hint = CLAIMS[name]
    error = refusal(legacy_of(tmp_path / "net.pth", {"model.0.weight": tensor}, 4, bytes(16)))
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize(
    ("claimed", "stored", "size"),
    [
        (ONE_GIGABYTE, ONE_GIGABYTE, 16),  # more than the file has
        (5, 5, 16),
        (4, 4, 15),
        (4, 5, 16),  # the two places that say how many do not agree
        (4, -1, 16),
        (4, 2**62, 16),
        (4, 4, 0),
    ],
)
def test_a_storage_of_the_older_format_that_is_not_in_the_file_is_refused(
    claimed: int, stored: int, size: int, tmp_path: Path
) -> None:
    tensor = FakeTensor((4,), (1,), FakeStorage(claimed))
    error = refusal(legacy_of(tmp_path / "net.pth", {"model.0.weight": tensor}, stored, bytes(size)))
    assert (error.message, error.hint) == (TOO_LARGE, COMPLETE)


@pytest.mark.parametrize("keys", [[], ["0", "1"], ["0", "0"], ["1"], "0", {"0": 1}, [["0"]]])
def test_a_list_of_storages_that_does_not_match_is_refused(keys: object, tmp_path: Path) -> None:
    content = {"model.0.weight": FakeTensor((4,), (1,), FakeStorage(4))}
    path = legacy_of(tmp_path / "net.pth", content, 4, bytes(16), keys=keys)
    error = refusal(path)
    if keys == [["0"]]:
        assert error.message == f"'{path}' is damaged or is no checkpoint (TypeError while reading it)"
    else:
        assert (error.message, error.hint) == ("the list of storages does not match the tensors", COMPLETE)


def test_one_storage_described_in_two_ways_is_refused(tmp_path: Path) -> None:
    content = [FakeTensor((4,), (1,), FakeStorage(4)), FakeTensor((4,), (1,), FakeStorage(4, kind="IntStorage"))]
    path = zip_of(tmp_path / "net.pth", dict(zip("ab", content, strict=True)), bytes(16))
    assert refusal(path).message == "this checkpoint describes the same tensor data in two ways"


def test_many_tensors_that_share_a_storage_may_not_add_up_to_more_than_the_file(
    tmp_path: Path,
) -> None:
    network = Network(patchgan_spec(ndf=4))
    elements = max(tensor.numel() for tensor in network.state_dict().values())
    content = {
        key: FakeTensor(tuple(value.shape), value.stride(), FakeStorage(elements))
        for key, value in network.state_dict().items()
    }
    path = zip_of(tmp_path / "net.pth", content, bytes(4 * elements))
    error = refusal(path)
    assert error.message == f"'{path}' claims more tensor data than the file has"
    assert error.hint == DISTRUST


def test_an_expanded_tensor_is_refused(network: Network, tmp_path: Path) -> None:
    state = {**state_of(network), "model.2.bias": torch.zeros(1).expand(4)}
    for form in ("zip", "legacy"):
        error = refusal(saved(tmp_path / "net.pth", state, form))
        assert (error.message, error.hint) == (TOO_LARGE, DISTRUST)


def test_a_tensor_that_is_to_be_read_negated_is_refused(network: Network, tmp_path: Path) -> None:
    state = {**state_of(network), "model.2.bias": torch._neg_view(torch.ones(4))}
    assert refusal(saved(tmp_path / "net.pth", state)).message == "this checkpoint has a tensor that makes no sense"


def test_attributes_cannot_be_set_on_a_storage_after_it_was_checked(tmp_path: Path) -> None:
    table, keys = pickled({"model.0.weight": FakeTensor((4,), (1,), FakeStorage(4))})
    # BUILD with {"elements": nan} right after the persistent id: every comparison with nan is false.
    build = b"}X\x08\0\0\0elementsG\x7f\xf8\0\0\0\0\0\0sb"
    assert table.count(b"Q") == 1
    path = zip_of(tmp_path / "net.pth", (table.replace(b"Q", b"Q" + build), keys), bytes(16))
    assert refusal(path).message == "this checkpoint describes something other than dictionaries of tensors"


# --- sizes that explode ---


def peak_bytes_of_refusal(path: Path) -> int:
    """Most memory that Python took while the file was refused."""
    refusal(path)  # imports and caches
    tracemalloc.start()
    try:
        refusal(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_compressed_archive_is_refused(network: Network, tmp_path: Path) -> None:
    source = saved(tmp_path / "net.pth", network.state_dict())
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    path = zipped(tmp_path / "compressed.pth", entries, compressed=True)
    error = refusal(path)
    assert error.message == "this archive is compressed, which torch.save never does"
    assert error.hint == "save the weights again"


@pytest.mark.parametrize("name", ["data/0", "byteorder", "data.pkl"])
def test_a_zip_bomb_is_refused_before_it_goes_off(name: str, tmp_path: Path) -> None:
    table, _ = pickled({"model.0.weight": FakeTensor((2**26,), (1,), FakeStorage(2**26))})
    entries = {"archive/data.pkl": table, f"archive/{name}": bytes(2**28)}
    path = zipped(tmp_path / "net.pth", entries, compressed=True)
    assert path.stat().st_size < 2**20
    assert peak_bytes_of_refusal(path) < 2**22


def test_dictionaries_nested_to_grow_without_end_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"leaf": 1}
    for _ in range(40):
        content = dict.fromkeys("abcdefghijklmnopqrstuvwxyz", content)
    path = saved(tmp_path / "net.pth", content)
    assert refusal(path).message == "this checkpoint has more than 100,000 entries"


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["self"] = content
    path = saved(tmp_path / "net.pth", content)
    assert refusal(path).message == f"'{path}' holds no tensors by name"


@pytest.mark.parametrize("fill", [b"s", b"u"])
def test_nested_tuples_as_keys_are_refused_at_once(fill: bytes, tmp_path: Path) -> None:
    # t = (t, t), 60 times: its hash would take 2^60 steps.
    nested = b")" + b"q\x00h\x00\x86" * 60
    body = b"}" + (b"(" if fill == b"u" else b"") + nested + b"K\x01" + fill + b"."
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + body, []))
    assert refusal(path).message == "this checkpoint has a dictionary that makes no sense"


def test_whole_numbers_as_keys_that_collide_are_refused(tmp_path: Path) -> None:
    # Multiples of 2^61 - 1 all have the hash 0: n of them take n^2 steps.
    content = {(2**61 - 1) * index: None for index in range(2, 20)}
    path = saved(tmp_path / "net.pth", content)
    assert refusal(path).message == "this checkpoint has a dictionary that makes no sense"


def test_calls_that_copy_the_same_list_again_and_again_are_refused(tmp_path: Path) -> None:
    # One list of 2,000 pairs, made into a dictionary 50,000 times: 10^8 entries out of 300 kB.
    pairs = b"]q\x00(" + b"".join(b"](J" + struct.pack("<i", index) + b"Ne" for index in range(2000)) + b"e"
    again = b"h\x01h\x00\x85R"
    body = b"ccollections\nOrderedDict\nq\x01" + pairs + b"](" + again * 50_000 + b"e."
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + body, []))
    assert path.stat().st_size < 400_000
    assert peak_bytes_of_refusal(path) < 2**27


def test_a_table_of_contents_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + b"]" * 7_000_000 + b".", []))
    assert refusal(path).message == "the checkpoint's table of contents is too long"
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02" + bytes(9_000_000) + b".", []))
    assert refusal(path).message == "the checkpoint's table of contents has more than 8,388,608 bytes"


def test_a_pickle_that_asks_for_more_bytes_than_there_are_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pth", (b"\x80\x02X\xff\xff\xff\x7fab.", []))
    assert peak_bytes_of_refusal(path) < 2**22
    assert refusal(path).message == f"'{path}' is damaged or is no checkpoint (EOFError while reading it)"


@pytest.mark.parametrize("name", ["x" * 501, "a\nb", "\x1b[31mred", "a\u202eb"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_tensor_whose_name_is_no_name_is_refused(network: Network, name: str, form: Format, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {**state_of(network), name: torch.zeros(1)}, form)
    error = refusal(path)
    assert error.message == "this checkpoint has a tensor name that is too long or not printable"
    assert error.hint == DISTRUST


@pytest.mark.parametrize("module", ["x" * 4000, "a\x1b[31m", "a\rb"])
def test_a_message_that_quotes_the_file_is_one_line_of_bounded_length(module: str, tmp_path: Path) -> None:
    error = refusal(zip_of(tmp_path / "net.pth", (b"\x80\x02c" + module.encode() + b"\nname\n.", [])))
    assert error.message.startswith("refused: loading this file would run or build '")
    assert len(error.message) <= 1000
    assert error.message.isprintable()


# --- damage ---


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_off_anywhere_is_refused(network: Network, form: Format, tmp_path: Path) -> None:
    whole = saved(tmp_path / "net.pth", network.state_dict(), form).read_bytes()
    path = tmp_path / "cut.pth"
    places = {*range(1, 40), *range(40, len(whole), 97), *range(len(whole) - 20, len(whole))}
    for place in sorted(places):
        path.write_bytes(whole[:place])
        error = refusal(path)
        assert error.hint is not None, place
    path.write_bytes(whole)
    assert_loads(path, network)


@pytest.mark.parametrize("form", FORMATS)
def test_garbage_after_the_start_of_a_file_is_refused(network: Network, form: Format, tmp_path: Path) -> None:
    whole = saved(tmp_path / "net.pth", network.state_dict(), form).read_bytes()
    path = tmp_path / "net.pth"
    for keep in (1, 2, 4, 8, 9, 16, 64, 256):
        path.write_bytes(whole[:keep] + b"\xa5" * (len(whole) - keep))
        refusal(path)


TABLE, _ = pickled({"model.0.weight": FakeTensor((4,), (1,), FakeStorage(4))})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a/data.pkl": TABLE}, "the archive lacks the data of a tensor ('data/0')"),
        ({"a/data.pkl": TABLE, "a/data/1": bytes(16)}, "the archive lacks the data of a tensor ('data/0')"),
        ({"a/data.pkl": TABLE, "b/data.pkl": TABLE}, "this is a zip archive, but not one that torch.save wrote"),
        ({"data.pkl": TABLE, "data/0": bytes(16)}, "this is a zip archive, but not one that torch.save wrote"),
        ({"a/b/data.pkl": TABLE}, "this is a zip archive, but not one that torch.save wrote"),
        ({"readme.txt": b"hello"}, "this is a zip archive, but not one that torch.save wrote"),
        (
            {"a/data.pkl": TABLE, "a/data/0": bytes(16), "a/byteorder": b"big"},
            "this checkpoint was written on a big-endian machine, which is not supported",
        ),
    ],
)
def test_an_archive_that_is_no_checkpoint_is_refused(entries: dict[str, bytes], message: str, tmp_path: Path) -> None:
    assert refusal(zipped(tmp_path / "net.pth", entries)).message == message


def test_an_archive_with_two_entries_of_one_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", TABLE)
        archive.writestr("a/data/0", bytes(16))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", TABLE)
    error = refusal(path)
    assert error.message == "this archive has entries that share a name, or far too many"
    assert error.hint == "do not trust it"


def test_an_archive_with_a_table_of_contents_that_fails_its_checksum_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pth", {"model.0.weight": FakeTensor((4,), (1,), FakeStorage(4))}, bytes(16))
    content = path.read_bytes()
    assert content.count(b"model.0.weight") == 1
    path.write_bytes(content.replace(b"model.0.weight", b"model.0.weighs"))
    error = refusal(path)
    assert (error.message, error.hint) == ("the checkpoint's table of contents is damaged", COMPLETE)


def test_an_archive_whose_directory_is_huge_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "net.pth", {f"a/{index:0200d}": b"" for index in range(9000)})
    assert refusal(path).message == "the directory of this archive has more than 2,097,152 bytes"


@pytest.mark.parametrize(
    "parts",
    [
        [0x1950A86A20F9469CFC6C, 1002],
        [0x1950A86A20F9469CFC6D, 1001],
        [{"model.0.weight": 1}],
        [[1, 2, 3]],
    ],
)
def test_a_pickle_that_torch_did_not_write_is_refused(parts: list[object], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    assert refusal(path).message == "this is a Python pickle, but not one that torch.save wrote"


@pytest.mark.parametrize("info", [{"little_endian": False}, {}, []])
def test_a_checkpoint_of_the_older_format_from_a_big_endian_machine_is_refused(info: object, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    parts = [0x1950A86A20F9469CFC6C, 1001, info, {}, []]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    assert refusal(path).message == "this checkpoint was written on a big-endian machine, which is not supported"


def entry(**change: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **change}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"t": entry(data_offsets=[0, 20])}, "tensor 't' is larger than what the file holds of it"),
        ({"t": entry(shape=[5], data_offsets=[0, 20])}, "tensor 't' is larger than what the file holds of it"),
        ({"t": entry(shape=[10**9], data_offsets=[0, 16])}, "tensor 't' is larger than what the file holds of it"),
        ({"t": entry(data_offsets=[16, 32])}, "tensor 't' is larger than what the file holds of it"),
        ({"t": entry(data_offsets=[16, 0])}, "tensor 't' is larger than what the file holds of it"),
        ({"t": entry(data_offsets=[-16, 0])}, "this checkpoint has a tensor with an impossible size"),
        ({"t": entry(data_offsets=[0.0, 16.0])}, "this checkpoint has a tensor with an impossible size"),
        ({"t": entry(shape=[-4])}, "this checkpoint has a tensor with an impossible size"),
        ({"t": entry(shape=[4.0])}, "this checkpoint has a tensor with an impossible size"),
        ({"t": entry(shape=[True])}, "this checkpoint has a tensor with an impossible size"),
        ({"t": entry(shape=[1] * 9)}, "this checkpoint has a tensor with 9 dimensions"),
        ({"t": entry(dtype="F8_E4M3")}, None),
        ({"t": entry(dtype=3)}, None),
        ({"t": {"dtype": "F32"}}, None),
        ({"t": 3}, None),
        ({"t": entry(data_offsets=[0])}, None),
        ({}, "'{path}' holds no tensors by name"),
        ({"__metadata__": {"format": "pt"}}, "'{path}' holds no tensors by name"),
    ],
)
def test_a_safetensors_header_that_makes_no_sense_is_refused(
    header: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    path = safetensors_of(tmp_path / "net.safetensors", json.dumps(header).encode(), bytes(16))
    text = refusal(path).message
    if message is None:
        assert text.startswith(f"'{path}' is damaged or is no checkpoint (")
    else:
        assert text == message.replace("{path}", str(path))


@pytest.mark.parametrize("header", [b"{" * 100_000, b'{"a":' * 5000, b"{}x", b'{"\xff": 1}'])
def test_a_safetensors_header_that_is_no_json_is_refused(header: bytes, tmp_path: Path) -> None:
    path = safetensors_of(tmp_path / "net.safetensors", header)
    assert refusal(path).message.startswith(f"'{path}' is damaged or is no checkpoint (")


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (10**6, "the header of this safetensors file is longer than the file"),
        (2**62, "the header of this safetensors file is longer than the file"),
        (3 * 2**20, "the header of this safetensors file has more than 2,097,152 bytes"),
    ],
)
def test_a_safetensors_header_of_impossible_length_is_refused(length: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(4 * 2**20 if length == 3 * 2**20 else 16))
    assert refusal(path).message == message


def test_fake_tensors_that_tell_the_truth_load(network: Network, tmp_path: Path) -> None:
    content = OrderedDict(
        (key, FakeTensor(tuple(value.shape), value.stride(), FakeStorage(value.numel(), key=key)))
        for key, value in network.state_dict().items()
    )
    data = {key: value.numpy().tobytes() for key, value in network.state_dict().items()}
    table, keys = pickled(content)
    assert keys == list(data)
    entries = {"a/data.pkl": table, **{f"a/data/{key}": value for key, value in data.items()}}
    assert_loads(zipped(tmp_path / "net.pth", entries), network)
