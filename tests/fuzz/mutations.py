"""Damages bytes and JSON values at random, from a seed: the same seed gives the same damage on every machine."""

from __future__ import annotations

import copy
import json
import struct
import zlib

#: Numbers at which counters, sizes and offsets go wrong.
_EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_STEPS = 4
#: Beyond this, whole numbers cannot be multiplied by fractions.
_SAFE = 2**64
_BLOCK = 64


def mutate(rng, data, others):
    """Damage bytes in one to four ways, one after the other.

    Args:
        rng: says how.
        data: what is damaged.
        others: further inputs of the same kind, of which parts may be taken.
    """
    damaged = bytearray(data)
    for _ in range(rng.randint(1, _MOST_STEPS)):
        rng.choice(_WAYS)(rng, damaged, others)
    return bytes(damaged)


def _at(rng, data):
    # The beginning holds what matters most.
    return rng.randrange(min(len(data), rng.choice((32, 256, len(data)))) or 1) if data else 0


def _cut(rng, data, others):
    del others
    del data[rng.randrange(len(data) + 1) :]


def _flip_bits(rng, data, others):
    del others
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        data[_at(rng, data)] ^= 1 << rng.randrange(8)


def _set_bytes(rng, data, others):
    del others
    for _ in range(rng.choice((1, 2, 4)) if data else 0):
        data[_at(rng, data)] = rng.choice((0, 0xFF, 0x7F, rng.randrange(256)))


def _set_number(rng, data, others):
    del others
    form, most = rng.choice((("B", 0xFF), ("<H", 0xFFFF), (">H", 0xFFFF), ("<I", 0xFFFFFFFF), (">I", 0xFFFFFFFF)))
    at, number = _at(rng, data), struct.pack(form, rng.choice(_EDGES) & most)
    data[at : at + len(number)] = number


def _remove(rng, data, others):
    del others
    at = _at(rng, data)
    del data[at : at + rng.randint(1, _BLOCK)]


def _repeat(rng, data, others):
    del others
    at = _at(rng, data)
    block = bytes(data[at : at + rng.randint(1, _BLOCK)])
    data[at:at] = block * rng.choice((1, 2, 16, 256))


def _blank(rng, data, others):
    del others
    at, length = _at(rng, data), rng.randint(1, _BLOCK)
    data[at : at + length] = bytes([rng.choice((0, 0xFF))]) * len(data[at : at + length])


def _splice(rng, data, others):
    other = rng.choice(others)
    data[_at(rng, data) :] = other[rng.randrange(len(other) + 1) :]


def _insert(rng, data, others):
    other = rng.choice(others)
    start = rng.randrange(len(other) + 1)
    at = _at(rng, data)
    data[at:at] = other[start : start + rng.randint(1, _BLOCK)]


def _append(rng, data, others):
    del others
    data += rng.randbytes(rng.randint(1, _BLOCK))


_WAYS = (_cut, _flip_bits, _set_bytes, _set_number, _remove, _repeat, _blank, _splice, _insert, _append)


def repair_checksums(data):
    """Give the chunks of a PNG the checksums they should have, so that damage gets past the first guard."""
    repaired, at = bytearray(data), 8
    while at + 12 <= len(repaired):
        (length,) = struct.unpack_from(">I", repaired, at)
        end = at + 8 + length
        if end + 4 > len(repaired):
            break
        repaired[end : end + 4] = struct.pack(">I", zlib.crc32(repaired[at + 4 : end]))
        at = end + 4
    return bytes(repaired)


#: Values that readers of JSON stumble over.
HOSTILE_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.0,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\u202e\u0000",
    "'; DROP TABLE jobs; --",
    "../../etc/passwd",
    "s3://",
    "s3://a",
    "s3://bucket/\0",
    "file:///etc/passwd",
    "http://169.254.169.254/latest",
    "x" * 5000,
    "9" * 5000,
    [],
    {},
    [[]],
    {"": None},
    [None] * 1000,
    "2026-13-45T99:99:99Z",
    "1e999",
)


def mutate_json(rng, value):
    """Replace, remove, double or nest values somewhere inside a JSON document; returns a new one."""
    changed = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, _MOST_STEPS)):
        changed = _change(rng, changed)
    return changed


def _change(rng, value):
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.15:
            del value[key]
        elif way < 0.25:
            value[rng.choice(("x", "kind", "\0", "__class__", key + "_"))] = _hostile(rng)
        else:
            value[key] = _change(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        if rng.random() < 0.3:
            value.extend(value[index : index + 1] * rng.choice((1, 3, 100)))
        else:
            value[index] = _change(rng, value[index])
        return value
    if rng.random() < 0.05:
        return _nest(rng, value)
    if isinstance(value, int | float) and abs(value) < _SAFE and not isinstance(value, bool) and rng.random() < 0.5:
        return value * rng.choice((-1, 0, 0.5, 10, 1000, 1e9)) + rng.choice((0, 1, -1, 0.1))
    return _hostile(rng)


def _hostile(rng):
    # A copy: a later step may change it, and put it into itself.
    return copy.deepcopy(rng.choice(HOSTILE_VALUES))


def _nest(rng, value):
    for _ in range(rng.choice((1, 10, 200))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value
