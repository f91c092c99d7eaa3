"""Image files that are wrong in every way we could think of, the same for the same number."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL.Image

from tests.conftest import PHOTOS


class Original(NamedTuple):
    kind: str
    data: bytes


class Mutant(NamedTuple):
    """
    Attributes:
        kind: of the original, `JPEG` and so on.
        mutation: what was done to it.
    """

    kind: str
    mutation: str
    data: bytes


Mutate = Callable[[random.Random, Original], bytes]

_SIDES = (0, 1, 2, 7, 255, 7071, 16383, 16384, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@cache
def originals() -> list[Original]:
    """Faces of tests/photos in the formats the service takes, and their variants."""
    made = []
    for name, box in (
        ("grace_hopper.jpg", (60, 60, 500, 500)),
        ("astronaut.png", (80, 0, 380, 300)),
    ):
        with PIL.Image.open(PHOTOS / name) as photo:
            face = photo.convert("RGB").crop(box).resize((120, 120))
        exif = PIL.Image.Exif()
        exif[0x0112] = 1
        for kind, image, options in (
            ("JPEG", face, {"quality": 85}),
            ("JPEG", face, {"progressive": True, "exif": exif.tobytes(), "icc_profile": b"i" * 99}),
            ("JPEG", face.convert("L"), {}),
            ("JPEG", face.convert("CMYK"), {}),
            ("PNG", face, {}),
            ("PNG", face.convert("RGBA"), {"exif": exif.tobytes(), "icc_profile": b"i" * 99}),
            ("PNG", face.quantize(16), {"bits": 4}),
            ("PNG", PIL.Image.fromarray(np.asarray(face.convert("L"), np.uint16) * 257), {}),
            ("WEBP", face, {"quality": 80, "exif": exif.tobytes(), "icc_profile": b"i" * 99}),
            ("WEBP", face.convert("RGBA"), {"lossless": True}),
            ("BMP", face, {}),
            ("BMP", face.quantize(256), {}),
        ):
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            made.append(Original(kind, buffer.getvalue()))
    return made


def mutant(number: int) -> Mutant:
    chance = random.Random(number)
    original = chance.choice(originals())
    name, mutate = chance.choice(list(_MUTATIONS.items()))
    return Mutant(original.kind, name, mutate(chance, original))


@cache
def black(side: int) -> bytes:
    """A black PNG of side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    lines = _compressed_zeros(side * (1 + (side + 7) // 8))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", lines) + _chunk(b"IEND")


@cache
def _compressed_zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def _flip_bits(chance: random.Random, original: Original) -> bytes:
    data = bytearray(original.data)
    # Half of them in the headers, where they hurt most.
    end = len(data) if chance.random() < 0.5 else 200
    for _ in range(chance.choice((1, 2, 5, 50, 500))):
        data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(data)


def _truncate(chance: random.Random, original: Original) -> bytes:
    end = len(original.data) if chance.random() < 0.7 else 100
    return original.data[: chance.randrange(end)]


def _overwrite(chance: random.Random, original: Original) -> bytes:
    data = bytearray(original.data)
    start = chance.randrange(len(data))
    length = chance.choice((1, 2, 4, 16, 300))
    data[start : start + length] = chance.choice(
        (b"\0" * length, b"\xff" * length, chance.randbytes(length))
    )
    return bytes(data)


def _cut_or_repeat(chance: random.Random, original: Original) -> bytes:
    data = original.data
    start, end = sorted(chance.randrange(len(data)) for _ in range(2))
    return data[:start] + data[start:end] * chance.choice((0, 2, 3)) + data[end:]


def _lie_about_size(chance: random.Random, original: Original) -> bytes:
    """Another width and height in the header, small, large or a bomb."""
    sides = chance.choice(_SIDES), chance.choice(_SIDES)
    data = bytearray(original.data)
    if original.kind == "PNG":
        struct.pack_into(">II", data, 16, *sides)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif original.kind == "BMP":
        struct.pack_into("<II", data, 18, *sides)
    elif original.kind == "JPEG":
        frame = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
        struct.pack_into(">HH", data, frame + 5, *(side & 0xFFFF for side in sides))
    elif b"VP8X" in data:
        place = data.index(b"VP8X") + 12
        for i, side in enumerate(sides):
            data[place + 3 * i : place + 3 * i + 3] = (side & 0xFFFFFF).to_bytes(3, "little")
    else:
        place = data.index(b"VP8L") + 9
        struct.pack_into("<I", data, place, chance.getrandbits(32))
    return bytes(data)


def _lie_in_header(chance: random.Random, original: Original) -> bytes:
    """Another depth, colour type, compression or chunk length, with a checksum that is right."""
    data = bytearray(original.data)
    if original.kind == "PNG":
        data[chance.randrange(24, 29)] = chance.randrange(256)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif original.kind == "BMP":
        struct.pack_into("<I", data, chance.choice((2, 10, 14, 26, 28, 30, 34, 46)),
                         chance.choice(_SIDES) & 0xFFFFFFFF)  # fmt: skip
    elif original.kind == "JPEG":
        place = chance.choice([i for i in range(len(data) - 9) if data[i] == 0xFF and data[i + 1]])
        data[place + 1 : place + 4] = bytes([chance.randrange(0xC0, 0xFF)]) + chance.randbytes(2)
    else:
        struct.pack_into("<I", data, chance.choice((4, 16)), chance.choice(_SIDES))
    return bytes(data)


def _bomb(chance: random.Random, original: Original) -> bytes:
    """A few hundred bytes that become as many pixels as are allowed, or a few more."""
    if original.kind != "PNG":
        return original.data + bytes(chance.choice((1, 10, 1000)) * 1000)
    return black(chance.choice((7000, 7071, 7072, 30000)))


def _polyglot(chance: random.Random, original: Original) -> bytes:
    """Two files in one, or one that begins like another."""
    other = chance.choice(
        (
            chance.choice(originals()).data,
            b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n",
            b"PK\x03\x04" + bytes(26),
            b"<html><script>alert(1)</script>",
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            b"GIF89a/*\x01\x00\x01\x00",
            b"\x7fELF\x02\x01\x01",
            b"#!/bin/sh\nid\n",
        )
    )
    cut = chance.choice((2, 4, 8, 12, 64))
    return chance.choice(
        (
            other + original.data,
            original.data + other,
            other[:cut] + original.data[cut:],
            original.data[:cut] + other,
        )
    )


def _metadata(original: Original, exif: bytes, icc: bytes) -> bytes:
    """The original with these blocks in place of its own, whole otherwise."""
    if original.kind == "JPEG":
        blocks = [(0xE1, b"Exif\0\0" + exif), (0xE2, b"ICC_PROFILE\0\x01\x01" + icc)]
        segments = b"".join(
            struct.pack(">BBH", 0xFF, mark, 2 + len(part)) + part
            for mark, block in blocks
            for part in (block[:65000],)
        )
        return original.data[:2] + segments + original.data[2:]
    if original.kind == "PNG":
        made = _chunk(b"eXIf", exif) + _chunk(b"iCCP", b"x\0\0" + icc)
        return original.data[:33] + made + original.data[33:]
    if original.kind == "WEBP" and b"VP8X" in original.data:
        chunks = b"".join(
            name + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
            for name, block in ((b"ICCP", icc), (b"EXIF", exif))
        )
        whole = original.data[:30] + chunks + original.data[30:]
        return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
    return original.data + exif + icc


def _exif_garbage(chance: random.Random, original: Original) -> bytes:
    count = chance.choice((1, 3, 65535))
    entry = struct.pack("<HHII", 0x0112, chance.choice((0, 2, 3, 5, 13)), chance.choice(_SIDES),
                        chance.choice((0, 8, 9, 2**32 - 1)))  # fmt: skip
    directory = b"II*\0" + struct.pack("<IH", 8, count) + entry * min(count, 3)
    loop = directory + struct.pack("<I", 8)  # the next directory is this one
    exif = chance.choice((chance.randbytes(chance.choice((1, 60, 5000))), directory, loop, b""))
    return _metadata(original, exif, b"")


def _icc_garbage(chance: random.Random, original: Original) -> bytes:
    bomb = _compressed_zeros(chance.choice((10**3, 10**7, 5 * 10**7)))
    icc = chance.choice((chance.randbytes(chance.choice((1, 128, 60000))), bomb))
    return _metadata(original, b"", icc)


def _text_bomb(chance: random.Random, original: Original) -> bytes:
    """Megabytes of comment in a few kilobytes; only PNG compresses them."""
    if original.kind != "PNG":
        return _metadata(original, bytes(60_000), bytes(60_000))
    text = _compressed_zeros(chance.choice((10**5, 10**7, 5 * 10**7)))
    chunks = _chunk(chance.choice((b"zTXt", b"iTXt")), b"Comment\0\0" + text) * chance.choice(
        (1, 9)
    )
    return original.data[:33] + chunks + original.data[33:]


def _noise(chance: random.Random, original: Original) -> bytes:
    """Nothing behind the first bytes of the format."""
    return original.data[: chance.choice((0, 2, 12, 30))] + chance.randbytes(
        chance.choice((0, 1, 100, 5000))
    )


def _chunk(name: bytes, data: bytes = b"") -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


_MUTATIONS: dict[str, Mutate] = {
    "bit flips": _flip_bits,
    "truncation": _truncate,
    "overwritten": _overwrite,
    "cut or repeated": _cut_or_repeat,
    "size that lies": _lie_about_size,
    "header that lies": _lie_in_header,
    "pixel bomb": _bomb,
    "polyglot": _polyglot,
    "EXIF garbage": _exif_garbage,
    "ICC garbage": _icc_garbage,
    "text bomb": _text_bomb,
    "noise": _noise,
}
