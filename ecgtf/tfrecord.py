"""TFRecord files and `tf.train.Example` messages by hand: no TensorFlow, no protobuf.

Worker processes of the preparation write shards with this module and stay small; importing TensorFlow would cost each of them
seconds and hundreds of megabytes.

A TFRecord file is a sequence of records (tensorflow/core/lib/io/record_writer.h):
`uint64 length | uint32 masked CRC32C of length | data | uint32 masked CRC32C of data`, little endian.
An Example is a protocol buffer (tensorflow/core/example/example.proto): a map from names to lists of bytes, floats or integers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

Feature = Sequence[bytes] | Sequence[float] | Sequence[int]

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
RECORD_HEAD = _HEADER.size
"""Bytes of a record in front of its data."""
RECORD_FRAME = _HEADER.size + _CHECKSUM.size
"""Bytes of a record around its data."""
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # field numbers in message Feature
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types


def masked_crc32c(data: bytes) -> int:
    """CRC32C of `data`, rotated and offset as TFRecord files store it (tensorflow/core/lib/hash/crc32c.h)."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One TFRecord around `data`."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _CHECKSUM.pack(masked_crc32c(length)), data, _CHECKSUM.pack(masked_crc32c(data))))


def read_tfrecord(path: Path | str) -> Iterator[bytes]:
    """The data of each record of a TFRecord file, checksums verified.

    Raises:
        ValueError: if a record is damaged or cut short; the message names the file and the record's number, counted from 0.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        number = 0
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise _broken(path, number, "cut short")
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                raise _broken(path, number, "damaged (the checksum of its length does not match)")
            if length + _CHECKSUM.size > size - file.tell():
                raise _broken(path, number, "cut short")
            data = file.read(length)
            if _CHECKSUM.pack(masked_crc32c(data)) != file.read(_CHECKSUM.size):
                raise _broken(path, number, "damaged (its checksum does not match)")
            yield data
            number += 1


def _broken(path: Path, number: int, how: str) -> ValueError:
    return ValueError(f"{path}: record {number} is {how}: copy or prepare the set again")


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """The bytes of a `tf.train.Example`; features in order of their names, so that equal features give equal bytes.

    Lists of `bytes` become a BytesList, of `int` an Int64List, of `float` a FloatList; an empty list is a BytesList.
    """
    entries = []
    for name in sorted(features):
        entry = _field(1, name.encode()) + _field(2, _encode_feature(name, features[name]))
        entries.append(_field(1, entry))
    return _field(1, b"".join(entries))


def decode_example(data: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """The features of a `tf.train.Example`, each a list of bytes, floats or integers.

    Raises:
        ValueError: if the bytes are not an Example.
    """
    features = {}
    try:
        for number, _, message in _fields(data):
            if number != 1:
                continue
            for _, _, entry in _fields(message):
                parts = {key: value for key, _, value in _fields(entry)}
                features[bytes(parts[1]).decode()] = _decode_feature(parts.get(2, b""))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected the bytes of a tf.train.Example, received {len(data)} bytes that are not one") from error
    return features


def _encode_feature(name: str, values: Feature) -> bytes:
    if all(isinstance(value, bytes) for value in values):
        return _field(_BYTES_LIST, b"".join(_field(1, value) for value in values))
    if all(isinstance(value, int | np.integer) for value in values):
        packed = b"".join(_varint(int(value) & 0xFFFFFFFFFFFFFFFF) for value in values)  # two's complement
        return _field(_INT64_LIST, _field(1, packed))
    if all(isinstance(value, float | np.floating) for value in values):
        return _field(_FLOAT_LIST, _field(1, np.asarray(values, "<f4").tobytes()))
    raise ValueError(f"feature {name!r}: expected a list of only bytes, only floats or only integers, received {values!r}")


def _decode_feature(message: bytes) -> list[bytes] | list[float] | list[int]:
    values = []
    for kind, _, items in _fields(message):
        for _, wire_type, item in _fields(items):
            if kind == _BYTES_LIST:
                values.append(bytes(item))
            elif kind == _FLOAT_LIST:  # packed, or one by one
                values.extend(np.frombuffer(item, "<f4").tolist())
            elif wire_type == _VARINT:
                values.append(_signed(item))
            else:
                position = 0
                while position < len(item):
                    value, position = _read_varint(item, position)
                    values.append(_signed(value))
    return values


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return b"".join((_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(data)), data))


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("expected a varint of at most 10 bytes in a tf.train.Example, received a longer one")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of a protocol-buffer message: field number, wire type, value (bytes, or an integer for varints)."""
    data = memoryview(data)
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"expected a wire type 0, 1, 2 or 5 in a tf.train.Example, received {wire_type}")
        if position + length > len(data):
            raise ValueError("expected a tf.train.Example, received one that is cut short")
        yield number, wire_type, data[position : position + length]
        position += length
