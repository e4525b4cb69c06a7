"""Checkpoints made to hurt: a few bytes that ask for much memory or time, forge what is checked, or are two files."""

from __future__ import annotations

import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from tests.fuzz.mutations import call_pickle, pickle_op, repack

PROTO, STOP = pickle_op("PROTO"), pickle_op("STOP")
ORDERED_DICT = pickle_op("GLOBAL", ("collections", "OrderedDict"))


def _archive(table: bytes, **more: bytes) -> bytes:
    return repack({"a/data.pkl": table, "a/byteorder": b"little", **more})


def _safetensors(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _numbers(count: int) -> bytes:
    """Return opcodes that make a list of `count` times None, kept as memo 1."""
    return b"](" + b"N" * count + b"e" + b"q\x01"


def many_lists() -> bytes:
    return _archive(PROTO + b"]" * 8_000_000 + STOP)


def many_lists_legacy() -> bytes:
    return PROTO + b"]" * 8_000_000 + STOP


def copies_of_a_list() -> bytes:
    """Each of the 20,000 calls at the end makes a new copy of a list of 50,000."""
    size = pickle_op("GLOBAL", ("torch", "Size")) + b"q\x02"
    return _archive(PROTO + _numbers(50_000) + size + b"(" + b"h\x02h\x01R" * 20_000 + b"t" + STOP)


def copies_of_a_dictionary() -> bytes:
    pairs = b"](" + b"".join(b"]" + pickle_op("INT", i) + b"aNa" for i in range(20_000)) + b"eq\x01"
    return _archive(PROTO + pairs + ORDERED_DICT + b"q\x02(" + b"h\x02h\x01\x85R" * 20_000 + b"t" + STOP)


def copies_by_attributes() -> bytes:
    """Setting the attributes of a dictionary copies them into it."""
    state = b"}(" + b"".join(pickle_op("BINUNICODE", f"k{i}") + b"N" for i in range(20_000)) + b"uq\x01"
    return _archive(PROTO + state + ORDERED_DICT + b"q\x02(" + b"h\x02)Rh\x01b" * 20_000 + b"t" + STOP)


def colliding_keys() -> bytes:
    """Every key has the same hash, so that each is compared with all before it."""
    keys = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(1, 40_000))
    return _archive(PROTO + b"}(" + keys + b"u" + STOP)


def one_network_in_many_places() -> bytes:
    state = Network(resnet_spec(blocks=9, ngf=2)).state_dict()
    for _ in range(3):
        state = {f"{'abcdefghijklmnop'[i]}{'x' * 100}": state for i in range(9)}
    return _saved(state)


def forged_attributes() -> bytes:
    """Return a tensor within bounds whose strides are set to others afterwards."""
    kind = pickle_op("GLOBAL", ("torch", "FloatStorage"))
    storage = b"(" + pickle_op("BINUNICODE", "storage") + kind + pickle_op("BINUNICODE", "0")
    storage += pickle_op("BINUNICODE", "cpu") + pickle_op("INT", 4) + b"tQ"
    tensor = pickle_op("GLOBAL", ("torch._utils", "_rebuild_tensor_v2")) + b"(" + storage + b"K\x00(K\x04t(K\x01t\x89Nt"
    tensor += b"R}" + pickle_op("BINUNICODE", "stride") + b"(J" + struct.pack("<i", -5) + b"tsb"
    table = PROTO + b"}" + pickle_op("BINUNICODE", "model.1.weight") + tensor + b"s" + STOP
    return _archive(table, **{"a/data/0": bytes(16)})


def attributes_of_a_function() -> bytes:
    function = pickle_op("GLOBAL", ("torch._utils", "_rebuild_tensor_v2"))
    return _archive(PROTO + function + b"}" + pickle_op("BINUNICODE", "polluted") + b"Nsb" + STOP)


def compressed_bomb(name: str = "a/data.pkl") -> bytes:
    """Return an archive with 1 MB that becomes 1 GB, and says that it becomes 100 bytes."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for entry in sorted(("a/data.pkl", "a/byteorder"), key=name.__eq__):  # the bomb comes last
            archive.writestr(zipfile.ZipInfo(entry), b"x" if entry == name else b"little", zipfile.ZIP_STORED)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(bomb.compress(bytes(2**24)) for _ in range(64)) + bomb.flush()
    data, at = out.getvalue(), out.getvalue().index(name.encode()) + len(name)
    changed = data[:at] + packed + data[at + 1 :]
    directory = changed.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[data.rindex(b"PK\x05\x06") + 16 :][:4], "little") + len(packed) - 1
    result = bytearray(changed)
    result[directory + 16 : directory + 20] = start.to_bytes(4, "little")
    at = result.index(name.encode(), start) - 46
    result[at + 10 : at + 12] = zipfile.ZIP_DEFLATED.to_bytes(2, "little")
    result[at + 20 : at + 28] = struct.pack("<II", len(packed), 100)
    return bytes(result)


def compressed_byte_order_bomb() -> bytes:
    return compressed_bomb("a/byteorder")


def a_directory_of_millions() -> bytes:
    """Return an archive that is nearly all directory: 50 bytes for what takes 700 in memory."""
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0)
    count = 200_000
    directory = b"".join(entry + i.to_bytes(4, "little") for i in range(count))
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count % 65536, count % 65536, len(directory), 4, 0)
    return b"PK\x03\x04" + directory + end


def a_shape_of_thousands() -> bytes:
    return _safetensors({"model.1.weight": {"dtype": "F32", "shape": [9] * 50_000, "data_offsets": [0, 0]}})


def fractional_offsets() -> bytes:
    state = Network(resnet_spec(blocks=1, ngf=2)).state_dict()
    header, data = {}, b""
    for key, value in state.items():
        raw = value.numpy().tobytes()
        header[key] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [1.0 * len(data), len(data) + len(raw)],
        }
        data += raw
    return _safetensors(header, data)


def a_header_of_brackets() -> bytes:
    return (100_001).to_bytes(8, "little") + b"{" + b"[" * 100_000


def a_header_of_many_lists() -> bytes:
    text = b'{"a": [' + b"[]," * 2_600_000 + b"[]]}"
    return len(text).to_bytes(8, "little") + text


def numbers_in_other_scripts() -> bytes:
    """The keys name layer 18 with Arabic digits, which are digits to a regular expression and to int()."""
    state = Network(resnet_spec(blocks=1, ngf=2)).state_dict()
    return _saved({key.replace("model.18.", "model.\u0661\u0668."): value for key, value in state.items()})


def numbers_with_zeros() -> bytes:
    state = Network(resnet_spec(blocks=1, ngf=2)).state_dict()
    return _saved({key.replace("model.18.", "model.018."): value for key, value in state.items()})


def numbers_of_thousands_of_digits() -> bytes:
    return _saved({f"model.{'9' * 400}.weight": torch.zeros(1, 1, 4, 4)})


def names_with_escapes() -> bytes:
    return _saved({"\x1b[2J\nmodel.1.weight": torch.zeros(1, 1, 4, 4)})


def names_without_end() -> bytes:
    return _saved({"x" * 1_000_000: torch.zeros(1, 1, 4, 4)})


def values_beyond_float32() -> bytes:
    state = Network(resnet_spec(blocks=1, ngf=2)).state_dict()
    return _saved({key: torch.full_like(value, 1e300, dtype=torch.float64) for key, value in state.items()})


def values_not_finite_in_both_ways() -> bytes:
    state = Network(resnet_spec(blocks=1, ngf=2)).state_dict()
    state["model.1.weight"].flatten()[:2] = torch.tensor([torch.inf, -torch.inf])
    return _saved(state)


def two_files_in_one() -> bytes:
    """Return a legacy checkpoint that is a tar archive too: torch.load would unpack it to the disk."""
    legacy = BytesIO()
    torch.save(Network(resnet_spec(blocks=1, ngf=2)).state_dict(), legacy, _use_new_zipfile_serialization=False)
    data = legacy.getvalue()
    # A text in front of the fourth pickle's dictionary reaches over the rest of the tar archive.
    magic = data[: data.index(STOP) + 1]
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("x", "storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 8
            archive.addfile(info, BytesIO(bytes(8)))
    tar = bytearray(out.getvalue())
    tar[:100] = bytes(100)
    start = magic + PROTO + b"M\xe9\x03" + STOP + PROTO + b"}" + pickle_op("BINUNICODE", "tar")
    start += b"X" + struct.pack("<I", len(tar) - len(start) - 5)
    assert len(start) <= 100
    tar[: len(start)] = start
    tar[148:156] = b" " * 8
    tar[148:156] = f"{sum(tar[:512]):06o}\0 ".encode()
    rest = b"s" + pickle_op("BINUNICODE", "little_endian") + b"\x88s" + STOP
    third = data.index(STOP, len(magic)) + 1
    fourth = data.index(STOP, data.index(b"little_endian")) + 1
    assert third < fourth
    return bytes(tar) + rest + data[fourth:]


def _saved(content: Any) -> bytes:
    out = BytesIO()
    torch.save(content, out)
    return out.getvalue()


def code_to_run() -> bytes:
    return call_pickle("os", "system", "touch sentinel")


FILES: tuple[Callable[[], bytes], ...] = (
    many_lists, many_lists_legacy, copies_of_a_list, copies_of_a_dictionary, copies_by_attributes, colliding_keys,
    one_network_in_many_places, forged_attributes, attributes_of_a_function, compressed_bomb,
    compressed_byte_order_bomb, a_directory_of_millions,
    a_shape_of_thousands, fractional_offsets, a_header_of_brackets, a_header_of_many_lists, numbers_in_other_scripts,
    numbers_with_zeros, numbers_of_thousands_of_digits, names_with_escapes, names_without_end, values_beyond_float32,
    values_not_finite_in_both_ways, two_files_in_one, code_to_run,
)  # fmt: skip


def write_all(folder: Path) -> dict[str, Path]:
    """Write every hostile file into `folder`; return their paths by name."""
    torch.manual_seed(0)
    files = {make.__name__: folder / f"{make.__name__}.pth" for make in FILES}
    for make in FILES:
        files[make.__name__].write_bytes(make())
    for name, spec in {
        "a_spec_of_brackets": "[" * 100_000,
        "a_spec_without_channels": resnet_spec(blocks=1, ngf=2, separable=True).with_widths({"trunk": 0}).dumps(),
        "a_spec_of_megabytes": json.dumps("x" * 2**21),
    }.items():
        files[name] = folder / name
        files[name].mkdir()
        (files[name] / "spec.json").write_text(spec, encoding="utf-8")
        (files[name] / "weights.safetensors").write_bytes(_safetensors({}))
    return files
