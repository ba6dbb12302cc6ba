import math
from contextlib import suppress

import numpy as np
import pytest

from ecgtf.tfrecord import decode_example, encode_example, frame, masked_crc32c, read_tfrecord

FEATURES = {
    "id": [b"ptb-xl/records100/00001"],
    "signal": [np.arange(-3000, 3000, dtype="<i2").tobytes()],
    "codes": [b"164889003", "naïve".encode(), b""],
    "age": [63.5],
    "ages": [math.nan, -0.0, 1e-30, math.inf],
    "sex": [-1],
    "counts": [0, 1, 127, 128, 300, 2**63 - 1, -(2**63)],
    "empty": [],
}


def write(path, *payloads: bytes):
    path.write_bytes(b"".join(map(frame, payloads)))
    return path


def as_lists(example) -> dict:
    lists = {name: getattr(feature, feature.WhichOneof("kind")).value for name, feature in example.features.feature.items()}
    return {name: list(values) for name, values in lists.items()}


def same(left: dict, right: dict) -> bool:
    def exact(values):
        return [np.float32(value).tobytes() if isinstance(value, float) else value for value in values]

    return left.keys() == right.keys() and all(exact(left[name]) == exact(right[name]) for name in left)


def test_example_round_trip():
    assert same(decode_example(encode_example(FEATURES)), FEATURES)
    assert decode_example(encode_example({})) == {}


def test_equal_features_give_equal_bytes_whatever_their_order():
    assert encode_example(dict(reversed(FEATURES.items()))) == encode_example(FEATURES)


def test_tensorflow_reads_what_we_encode():
    import tensorflow as tf

    assert same(as_lists(tf.train.Example.FromString(encode_example(FEATURES))), FEATURES)


def test_we_decode_what_tensorflow_encodes():
    import tensorflow as tf

    kinds = {
        bytes: lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
        float: lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
        int: lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
    }
    made = {name: kinds[type(values[0]) if values else bytes](values) for name, values in FEATURES.items()}
    example = tf.train.Example(features=tf.train.Features(feature=made))
    assert same(decode_example(example.SerializeToString()), FEATURES)


def test_unpacked_lists_of_older_writers_are_read():
    floats = b"\x0d" + np.float32(1.5).tobytes() + b"\x0d" + np.float32(-2).tobytes()
    integers = b"\x08\x05\x08\x07"

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    entries = [field(1, field(1, b"x") + field(2, field(2, floats))), field(1, field(1, b"n") + field(2, field(3, integers)))]
    assert decode_example(field(1, b"".join(entries))) == {"x": [1.5, -2.0], "n": [5, 7]}


def test_framing_is_tensorflows(tmp_path):
    import tensorflow as tf

    payloads = [b"", b"one", encode_example(FEATURES)]
    ours = write(tmp_path / "ours", *payloads)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert ours.read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(ours))] == payloads
    assert list(read_tfrecord(tmp_path / "theirs")) == payloads


def test_masked_crc_of_a_known_text():
    # CRC32C("123456789") = 0xE3069283 (RFC 3720, appendix B.4), rotated right by 15 bits, plus 0xA282EAD8
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_every_flipped_bit_is_found(tmp_path):
    path = write(tmp_path / "train.tfrecord", b"first", b"second record")
    whole = path.read_bytes()
    first = len(frame(b"first"))
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"train\.tfrecord: record {int(place >= first)} is "):
            list(read_tfrecord(path))


def test_every_cut_is_found(tmp_path):
    path = write(tmp_path / "train.tfrecord", b"first", b"second record")
    whole = path.read_bytes()
    first = len(frame(b"first"))
    for size in set(range(1, len(whole))) - {first}:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"train\.tfrecord: record {int(size > first)} is cut short"):
            list(read_tfrecord(path))


def test_bytes_that_are_no_example_are_refused():
    rng = np.random.default_rng(0)
    good = encode_example(FEATURES)
    for _ in range(500):
        damaged = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.5 else good)
        damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        with suppress(ValueError):  # either another valid message or a ValueError, nothing else
            decode_example(bytes(damaged))
    with pytest.raises(ValueError, match=r"expected the bytes of a tf\.train\.Example"):
        decode_example(b"not an example")


def test_a_mixed_list_is_refused():
    with pytest.raises(ValueError, match=r"feature 'age': .* received \[1, 2.0\]"):
        encode_example({"age": [1, 2.0]})
