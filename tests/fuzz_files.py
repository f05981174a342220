"""Broken files: `kc.load` says what is wrong with each, or gives an object that works.

    python -m tests.fuzz_files [count] [seed]

Each is a good file that was cut, of which bits were turned, whose header says something else, or that lies
about its length.  The test of this in test_files.py has a few thousand of them.
"""

import json
import re
import sys
from collections import Counter
from copy import deepcopy
from math import prod
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse

import ketcore as kc

JUNK = (
    None, True, False, 0, -1, 1, 2, 3, 8, 64, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, float("nan"),
    float("inf"), "", "a", "F64", "F32", "F16", "BF16", "I64", "BOOL", "U8", "0", "1", "2", "[]", "[2, 3]",
    "[1e3]", "[true]", '["0xfff"]', '["factors.0"]', '["packed"]', "dense", "identity", "Ket", "Diagonal",
    "KroneckerMatrix", "\ud800", "{", "[" * 40, [], [0], [0, 0], [0, 8], [8, 0], [2, 2], [2**40, 2**40],
    [0, 2**62], [1] * 70, [-1, 5], [[1]], {}, {"a": 1}, {"dtype": "F64"},
)  # fmt: skip
LENGTHS = (0, 1, 2, 7, 64, 2**23, 2**23 + 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXT = re.compile(r"path must be a file of ketcore\.save, got '.*', in which .+", re.DOTALL)


def samples() -> list[bytes]:
    """Small files of every kind."""
    rng = np.random.default_rng(0)
    chain = kc.KroneckerSum([rng.standard_normal((2, 2)) for _ in range(3)])
    sparse = scipy.sparse.random_array((3, 4), density=0.5, format="csr", rng=0)
    parts = [np.ones((2, 3), np.float32), kc.Diagonal([1.0, 2.0j]), kc.Identity(3), sparse, sparse.T]
    objects = [
        kc.Ket.random((2, 3), rank=2, batch_shape=(3,), rng=0),
        kc.Ket.random((2, 3), rank=0, rng=0, dtype="complex64"),
        kc.KroneckerMatrix.random((5, 7), order=2, rank=2, rng=0, dtype="float16"),
        kc.KroneckerMatrix.random((4, 4), order=2, rank=2, rng=0, dtype="complex128"),
        chain,
        chain.to_kronecker(),
        kc.KroneckerProduct(parts),
        kc.KroneckerProduct([scipy.sparse.csc_matrix(np.eye(2)), kc.Identity(2)]),
        kc.Permutation((2, 3, 2), (2, 0, 1)),
        kc.Permutation((2**70, 3), (1, 0)),
        kc.Diagonal([1.0, 2.0]),
        kc.Identity(3),
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        found = []
        for each in objects:
            kc.save(path, each)
            found.append(path.read_bytes())
    return found


def broken(random: Random, sound: bytes) -> bytes:
    """A file that differs from a sound one."""
    way = random.choice((cut, flipped, resized, edited, edited, edited, spliced))
    return way(random, sound)


def cut(random, sound):
    length = 8 + int.from_bytes(sound[:8], "little")
    return sound[: random.choice((random.randrange(len(sound)), random.randrange(length), length))]


def flipped(random, sound):
    found = bytearray(sound)
    length = random.choice((8, 8 + int.from_bytes(sound[:8], "little"), len(sound)))
    for _ in range(random.choice((1, 1, 2, 8))):
        found[random.randrange(length)] ^= 1 << random.randrange(8)
    return bytes(found)


def resized(random, sound):
    length = random.choice((*LENGTHS, len(sound), len(sound) - 8, len(sound) - 7, random.randrange(2**64)))
    return length.to_bytes(8, "little") + sound[8:]


def spliced(random, sound):
    a, b = sorted(random.randrange(len(sound) + 1) for _ in range(2))
    middle = random.choice((b"", sound[a:b] * 2, random.randbytes(b - a), bytes(b - a), b"[" * 5000))
    return sound[:a] + middle + sound[b:]


def edited(random, sound):
    """Other JSON in the header, of the right length or of nearly that."""
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        header = _changed(random, header)
    text = json.dumps(header).encode()
    if random.random() < 0.1 and len(text) > 2:
        # A name twice, as no dictionary has it.
        text = text[:-1] + b"," + text[1:]
    text += b" " * (-len(text) % 64 if random.random() < 0.9 else 3)
    return len(text).to_bytes(8, "little") + text + sound[8 + length :]


def _changed(random, header):
    places = list(_places(header)) if isinstance(header, dict | list) else []
    if not places:
        return deepcopy(random.choice(JUNK))
    holder, key = random.choice(places)
    what = random.random()
    if what < 0.15:
        del holder[key]
    elif what < 0.3 and isinstance(holder, dict):
        name = random.choice(("a", "identities", "complex", "packed", "factors.0", "values"))
        holder[name] = deepcopy(holder[key])
    elif what < 0.45 and isinstance(holder[key], int):
        holder[key] += random.choice((-8, -1, 1, 8, 2**40))
    elif what < 0.6 and isinstance(holder[key], str):
        holder[key] = _other_text(random, holder[key])
    else:
        other, place = random.choice(places)
        holder[key] = deepcopy(random.choice((random.choice(JUNK), other[place])))
    return header


def _other_text(random, text):
    """A text with a number in it changed, or one of its letters."""
    at = [found.span() for found in re.finditer(r"\d+", text)]
    if at and random.random() < 0.7:
        a, b = random.choice(at)
        return text[:a] + random.choice(("0", "1", "2", "3", "6", str(2**63), "9" * 5000, "-1")) + text[b:]
    place = random.randrange(len(text) + 1)
    return text[:place] + random.choice('[]"{},x0') + text[place + 1 :]


def _places(value):
    """Every place of a value within nested dictionaries and lists."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def outcome(path: Path, mode: str | None) -> str:
    """What comes of a file: "loaded", or how it is refused; anything else is an error of this function."""
    try:
        found = kc.load(path, mode)
    except ValueError as error:
        text = str(error)
    else:
        text = ""
    if text:
        assert TEXT.fullmatch(text), text
        assert len(text) < 2000, text
        return "refused"
    # What was let through must not crash what reads it.
    if isinstance(found, kc.Ket) and prod(found.shape) < 10_000:
        found.to_dense()
    elif not isinstance(found, kc.Ket | kc.Diagonal | kc.Identity) and prod(found.shape) < 10_000:
        found @ np.ones(found.shape[1])
        found.to_dense()
    return "loaded"


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """How many of `count` broken files came out how."""
    random, sound, path = Random(seed), samples(), folder / "broken"
    found: Counter[str] = Counter()
    for number in range(count):
        data = broken(random, random.choice(sound))
        path.write_bytes(data)
        try:
            found[outcome(path, (None, "r", "c")[number % 3])] += 1
        except BaseException:
            print(f"file {number} of seed {seed}: {data!r}")
            raise
    return found


def main(count: str = "100000", seed: str = "0") -> None:
    """Print how many files came out how, and the memory that it took."""
    import resource

    with TemporaryDirectory() as folder, np.errstate(all="ignore"):
        found = fuzz(int(count), int(seed), Path(folder))
    print(dict(found), f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
