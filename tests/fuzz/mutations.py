"""Seeded mutations of real files: of their bytes, and of what the bytes mean (pickles, zip entries, JSON, protobuf)."""

from __future__ import annotations

import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

MALICIOUS = (("os", "system"), ("posix", "system"), ("builtins", "exec"), ("subprocess", "Popen"), ("builtins", "eval"))
_GLOBALS = (
    *MALICIOUS, ("builtins", "getattr"), ("torch", "load"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_sparse_tensor"), ("torch", "Size"),
    ("torch", "FloatStorage"), ("torch", "HalfStorage"), ("torch", "LongStorage"), ("torch.storage", "UntypedStorage"),
    ("collections", "OrderedDict"), ("torch", "device"), ("torch", "float32"), ("numpy", "ndarray"), ("__main__", "x"),
)  # fmt: skip
_SIZES = (
    0, 1, 2, 3, 4, 7, 8, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62,
    2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63),
)  # fmt: skip
_NAMES = (
    "", "model", "model.1", "model.1.weight", "model.01.weight", "model.\u0663.weight", "model.999999999.weight",
    "model." + "9" * 5000 + ".weight", "module.model.1.weight", "netG_A.model.1.weight", "model.10.conv_block.1.weight",
    "model.model.1.model.1.weight", "model.0.weight", "model.256.weight", "__class__", "x" * 70_000, "a\nb\x1b[31m\x00",
    "\U0001f600", "../../etc/passwd", "model.1.running_mean", "model.1.num_batches_tracked", "total_ops",
)  # fmt: skip
_JSON_VALUES: tuple[Any, ...] = (
    None, True, False, "", "F32", "F16", "BF16", "I64", "F8_E4M3", 0.0, 1.5,
    1e308, float("nan"), float("inf"), [], {}, [[]],
    [1], [4, 3, 7, 7], [9] * 9, [9] * 20_000, [-1, -1], [2**63, 2**63], [0], "instance", "batch", "none",
    "resnet", "unet",
    *_SIZES,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return `data` with one to four blind changes; `other` is what splices take from."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if len(changed) < 8:
            break
        at = _place(rng, len(changed))
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 512, 4096)), len(changed) - at)
        kind = rng.randrange(10)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            changed[at : at + length] = bytes([rng.choice((0, 0xFF, 0x7F, 0x80, 0x20))]) * length
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at : at + length]
        elif kind == 5:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 1, 2, 100))
        elif kind == 6:
            to = rng.randrange(len(changed) - length + 1)
            changed[at : at + length], changed[to : to + length] = (
                changed[to : to + length],
                changed[at : at + length],
            )
        elif kind == 7:
            size, form = rng.choice(((2, "<H"), (4, "<I"), (8, "<Q"), (4, ">I")))
            changed[at : at + size] = struct.pack(form, rng.choice(_SIZES) % 2 ** (8 * size))
        elif kind == 8:
            changed[at : at + 1] = varint(rng.choice(_SIZES))
        else:
            start = rng.randrange(len(other))
            changed[at : at + length] = other[start : start + rng.choice((length, 4 * length, len(other)))]
    return bytes(changed)


def _place(rng: random.Random, size: int) -> int:
    """Return a place in a file, often near its start or end, where headers and directories are."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(min(size, 256))
    if kind == 1:
        return size - 1 - rng.randrange(min(size, 2048))
    return rng.randrange(size)


def varint(value: int) -> bytes:
    """Return a protobuf varint; negative numbers take ten bytes, as they do there."""
    value %= 2**64
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


# -------------------------------------------------------------------------------------------------------------- pickles


def pickle_op(name: str, argument: Any = None) -> bytes:
    """Return the bytes of a pickle opcode."""
    if name == "GLOBAL":
        return f"c{argument[0]}\n{argument[1]}\n".encode()
    if name == "BINUNICODE":
        text = argument.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + bytes(text)
    if name == "INT":
        if 0 <= argument < 256:
            return b"K" + bytes([argument])
        if -(2**31) <= argument < 2**31:
            return b"J" + struct.pack("<i", argument)
        raw = int(argument).to_bytes((argument.bit_length() + 8) // 8, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    return {"CALL": b"R", "EMPTY_TUPLE": b")", "TUPLE1": b"\x85", "STOP": b".", "PROTO": b"\x80\x02"}[name]


def call_pickle(module: str, name: str, *arguments: str) -> bytes:
    """Return a pickle that calls `module.name` with texts when it is run."""
    return b"".join(
        (
            pickle_op("PROTO"), pickle_op("GLOBAL", (module, name)), b"(",
            *(pickle_op("BINUNICODE", argument) for argument in arguments), b"t", b"R", pickle_op("STOP"),
        )
    )  # fmt: skip


def mutate_pickle(rng: random.Random, data: bytes) -> bytes:
    """Return a pickle with one to three opcodes changed, removed, repeated, moved or put in."""
    ops = [(op.name, argument, position) for op, argument, position in pickletools.genops(data)]
    ends = [*(position for _, _, position in ops[1:]), len(data)]
    parts = [data[position:end] for (_, _, position), end in zip(ops, ends, strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(parts))
        kind = rng.randrange(12)
        if kind <= 4:
            parts[at] = _other_argument(rng, parts[at])
        elif kind == 5:
            del parts[at : at + rng.choice((1, 1, 4, 40))]
        elif kind == 6:
            parts[at:at] = parts[at : at + rng.choice((1, 3, 10))] * rng.choice((1, 2, 50, 1000))
        elif kind == 7:
            to = rng.randrange(len(parts))
            parts[at], parts[to] = parts[to], parts[at]
        elif kind == 8:
            parts[at] = bytes([rng.randrange(256)]) + parts[at][1:]
        elif kind == 9:
            parts.insert(at, rng.choice(_STRANGE))
        elif kind == 10:
            parts[at:at] = [pickle_op("GLOBAL", rng.choice(_GLOBALS)), b"(", parts[at], b"t", b"R"]
        else:
            parts.insert(at, rng.choice((b"]", b"}", b"(", b")", b"a", b"s", b"u", b"e", b"R", b"b", b"Q", b"t", b"N")))
        if not parts:
            break
    return b"".join(parts)


_STRANGE = (
    b"i__builtin__\nexec\n", b"o", b"\x81", b"\x92", b"\x93", b"\x82\x01", b"\x84\xff\xff\xff\x7f", b"P1\n", b"0",
    b"1", b"2",
    b"\x95" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"\x8d" + b"\xff" * 8, b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff",
    b"T\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"r\xff\xff\xff\xff", b"h\x00",
    b"I" + b"9" * 5000 + b"\n",
    b"V" + b"x" * 5000 + b"\n", b"\x94", b"\x97", b"\x98", b"\x8f", b"\x90", b"\x91", b"]" * 3000,
    b"}" * 3000, b"(" * 3000,
    b"}h\x00" * 500, b"G\x7f\xf8\0\0\0\0\0\0",
)  # fmt: skip


def _other_argument(rng: random.Random, part: bytes) -> bytes:
    opcode = part[:1]
    if opcode in b"KMJ\x8a":
        return pickle_op("INT", rng.choice((*_SIZES, rng.randrange(2**20))))
    if opcode == b"X":
        old = part[5:].decode("utf-8", "replace")
        changed = old.replace(".", rng.choice((".", "..", ".module.", ".0")), 1) + rng.choice(("", "", "x", ".weight"))
        return pickle_op("BINUNICODE", rng.choice((changed, *_NAMES)))
    if opcode == b"c":
        return pickle_op("GLOBAL", rng.choice(_GLOBALS))
    if opcode in b"hq":
        return opcode + bytes([rng.randrange(256)])
    if len(part) > 1:
        return opcode + rng.randbytes(len(part) - 1)
    return rng.choice((b"\x88", b"\x89", b"N", b")", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"e", b"u"))


def mutate_legacy(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return a file of the older torch format (five pickles, then the storages) with one of its parts changed."""
    ends, file = [0], BytesIO(data)
    for _ in range(5):
        for op, _, _ in pickletools.genops(file):
            if op.name == "STOP":
                break
        ends.append(file.tell())
    parts = [data[start:end] for start, end in zip(ends, [*ends[1:], len(data)], strict=True)]
    which = rng.choice((0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 5))
    parts[which] = mutate_bytes(rng, parts[which], other) if which == 5 else mutate_pickle(rng, parts[which])
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------------------------ zip


def repack(entries: Mapping[str, bytes], compressed: tuple[str, ...] = ()) -> bytes:
    """Return a zip archive with right checksums, stored but for the names in `compressed`."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            how = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return out.getvalue()


def mutate_zip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return a torch archive with its table of contents or one of its entries changed, and checksums that are right."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    table = next(name for name in entries if name.endswith("data.pkl"))
    kind = rng.randrange(20)
    name = rng.choice(list(entries))
    if kind < 13:
        entries[table] = mutate_pickle(rng, entries[table])
    elif kind == 13:
        entries[table] = mutate_bytes(rng, entries[table], other)
    elif kind == 14:
        entries[name] = mutate_bytes(rng, entries[name], other) if len(entries[name]) > 8 else b""
    elif kind == 15:
        del entries[name]
    elif kind == 16:
        entries[rng.choice(("x/data.pkl", "data.pkl", "../data.pkl", "a/constants.pkl", name + "x"))] = entries.pop(
            name
        )
    elif kind == 17:
        return repack(entries, (name,))
    elif kind == 18:
        entries[table.replace("data.pkl", "byteorder")] = rng.choice((b"big", b"", b"little", b"x" * 10_000))
    else:
        entries[name] = entries[name][: rng.randrange(len(entries[name]) + 1)]
    packed = repack(entries)
    return mutate_bytes(rng, packed, other) if rng.random() < 0.1 else packed


# ----------------------------------------------------------------------------------------------------------------- JSON


def mutate_json(rng: random.Random, document: Any) -> Any:
    """Return a JSON document with one to three of its values or keys changed, doubled or removed."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holders: list[Any] = []
        _holders(document, holders)
        if not holders:
            return rng.choice(_JSON_VALUES)
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        kind = rng.randrange(8)
        if kind <= 3:
            holder[key] = rng.choice(_JSON_VALUES)
        elif kind == 4:
            del holder[key]
        elif kind == 5 and isinstance(holder, dict):
            holder[rng.choice(_NAMES)] = holder.pop(key)
        elif isinstance(holder, dict):
            holder[rng.choice(_NAMES)] = holder[key]
        else:
            holder[:] = holder * rng.choice((2, 3, 1000))
    return document


def _holders(value: Any, found: list[Any]) -> None:
    if isinstance(value, (dict, list)) and value:
        found.append(value)
        for child in value.values() if isinstance(value, dict) else value:
            _holders(child, found)


def mutate_json_text(rng: random.Random, text: str) -> bytes:
    """Return the bytes of a JSON text with a change of its values or of its bytes."""
    kind = rng.randrange(8)
    if kind == 0:
        return mutate_bytes(rng, text.encode(), text.encode())
    if kind == 1:
        return rng.choice(
            (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe{}", b"", b"null", b'"x"', b"[]")
        )
    return json.dumps(mutate_json(rng, json.loads(text))).encode()


def mutate_safetensors(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Return a safetensors file with its JSON header changed, and a length before it that is nearly always right."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_json_text(rng, data[8 : 8 + length].decode())
    stated = len(header) if rng.random() < 0.9 else rng.choice((*_SIZES, len(header) + 1, len(header) - 1)) % 2**64
    return stated.to_bytes(8, "little") + header + data[8 + length :]


# ------------------------------------------------------------------------------------------------------------- protobuf

_OPERATORS = (
    "Conv", "ConvTranspose", "InstanceNormalization", "Relu", "LeakyRelu", "Tanh", "Add", "Concat", "Pad", "Identity",
    "ConstantOfShape", "Expand", "Tile", "Resize", "Upsample", "Range", "EyeLike", "RandomNormal", "Loop", "If", "Scan",
    "Reshape", "Transpose", "Gather", "Slice", "Split", "Squeeze", "Cast", "MatMul", "Gemm", "Einsum", "MaxPool", "LRN",
    "AveragePool", "OneHot", "DFT", "STFT", "NonZero", "SequenceAt", "SequenceEmpty", "Optional", "GRU",
    "QuantizeLinear",
    "DequantizeLinear", "Shape", "Size", "TopK", "GridSample", "NoSuchOperator", "", "BatchNormalization",
    "CenterCropPad",
)  # fmt: skip


def mutate_onnx(rng: random.Random, data: bytes) -> bytes:
    """Return an ONNX file with one to three fields of its protobuf messages changed; every length stays right."""
    import onnx

    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.2 and model.graph.node:
            rng.choice(model.graph.node).op_type = rng.choice(_OPERATORS)
            continue
        messages: list[Any] = []
        _messages(model, messages)
        message = rng.choice(messages)
        fields = list(message.DESCRIPTOR.fields)
        present = [field for field, _ in message.ListFields()]
        field = rng.choice(present) if present and rng.random() < 0.8 else rng.choice(fields)
        _mutate_field(rng, message, field)
    try:
        return bytes(model.SerializeToString())
    except Exception:  # noqa: BLE001  protobuf: a text that is none, a required part that is gone
        return mutate_bytes(rng, data, data)


def _messages(message: Any, found: list[Any]) -> None:
    found.append(message)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                _messages(child, found)


def _mutate_field(rng: random.Random, message: Any, field: Any) -> None:
    value = getattr(message, field.name)
    if field.message_type is not None and not field.is_repeated:
        if rng.random() < 0.5:
            message.ClearField(field.name)
        else:
            value.SetInParent()
        return
    if field.message_type is not None:
        _mutate_messages(rng, value)
        return
    new = _scalar(rng, field, value if not field.is_repeated else None)
    if not field.is_repeated:
        setattr(message, field.name, new)
    elif not value or rng.random() < 0.2:
        value.extend([new] * rng.choice((1, 1, 3, 5000)))
    elif rng.random() < 0.3:
        del value[rng.randrange(len(value)) :]
    else:
        value[rng.randrange(len(value))] = new


def _mutate_messages(rng: random.Random, items: Any) -> None:
    kind = rng.randrange(5)
    if kind == 0 or not items:
        items.add()
        return
    at = rng.randrange(len(items))
    if kind == 1:
        del items[at]
    elif kind == 2:
        for _ in range(rng.choice((1, 1, 500))):
            items.add().CopyFrom(items[at])
    elif kind == 3:
        copied = type(items[at])()
        copied.CopyFrom(items[at])
        items[at].CopyFrom(items[rng.randrange(len(items))])
        items[rng.randrange(len(items))].CopyFrom(copied)
    else:
        items[at].Clear()


def _scalar(rng: random.Random, field: Any, old: Any) -> Any:
    kinds: dict[Any, Callable[[], Any]] = {
        field.CPPTYPE_INT32: lambda: (rng.choice(_SIZES) + 2**31) % 2**32 - 2**31,
        field.CPPTYPE_INT64: lambda: (rng.choice((*_SIZES, rng.randrange(64))) + 2**63) % 2**64 - 2**63,
        field.CPPTYPE_UINT64: lambda: rng.choice(_SIZES) % 2**64,
        field.CPPTYPE_FLOAT: lambda: rng.choice((0.0, -1.0, 1e38, float("inf"), float("nan"), 1e-45)),
        field.CPPTYPE_DOUBLE: lambda: rng.choice((0.0, -1.0, 1e308, float("inf"), float("nan"))),
        field.CPPTYPE_ENUM: lambda: rng.choice([value.number for value in field.enum_type.values]),
    }
    if field.cpp_type in kinds:
        return kinds[field.cpp_type]()
    if field.type == field.TYPE_BYTES:
        old = old or b""
        return rng.choice((b"", old[: len(old) // 2], old + b"\0" * 4, old * 2, b"\xff" * len(old), rng.randbytes(16)))
    return rng.choice(
        ("", "input", "output", "x" * 70_000, "\u0663\x1b[31m\n", "../../etc/passwd", "/dev/zero", *_OPERATORS)
    )
