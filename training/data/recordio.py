"""MXNet's RecordIO as InsightFace packs faces into it, read without MXNet.

A `.rec` file is a row of records, each at a multiple of four bytes, all numbers little-endian:

    magic       uint32      0xced7230a
    length      uint32      bytes of the payload in the lower 29 bits; in the upper three
                            0 for a record in one part, 1, 2, 3 for its first, middle, last
    payload     padded to four bytes

The writer takes the magic number out where a payload holds it, and begins a new part there.
A payload is a header and an encoded image:

    flag        uint32      0, or how many labels follow the header
    label       float32     the person, where flag is 0
    id, id2     uint64      not used
    labels      float32     flag times; the first is the person

The `.idx` file beside it says where records begin, a line `key<TAB>offset` each. InsightFace's
record of key 0 holds no image but two labels, a and b: images have the keys 1 to a - 1, and
those from a to b - 1 hold each the range of one person's keys. Without it all are images.
(dmlc-core, `recordio.h`; MXNet, `recordio.py`; InsightFace, `face2rec2.py`.)
"""

import os
import struct
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from app.vision.image import Image
from training.data.face import decode, decode_aligned, margin_of
from training.errors import InvalidRecords, NoFaces

_MAGIC = 0xCED7230A
_LENGTH = (1 << 29) - 1
_WHOLE, _FIRST, _LAST = 0, 1, 3

_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LABEL = struct.Struct("<f")
# Frame, header and the first label.
_BEGINNING = _FRAME.size + _HEADER.size + _LABEL.size
_AT_ONCE = 1 << 16
# float32 holds no odd numbers beyond.
_MOST_PERSONS = 1 << 24


class _Record(NamedTuple):
    labels: npt.NDArray[np.float32]
    image: bytes


class RecordFaces:
    """The faces of a `.rec` file with its `.idx` beside it.

    All labels are read when it is opened. The file is opened again for each face: so it can
    be sent to another process, and that costs little beside decoding.

    Raises:
        NoFaces: no such file, or no image in it.
        InvalidRecords: the files are damaged, do not belong together or have no whole numbers
            as labels.
        InvalidFaces: the first image is broken or no aligned face.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = path.with_suffix(".idx")
        for file in (path, index):
            if not file.is_file():
                raise NoFaces(f"No file {file}; a .rec and its .idx belong together.")
        self._size = path.stat().st_size
        self._keys, self._offsets = _read_index(index, self._size)
        self._drop_headers()
        if not len(self._keys):
            raise NoFaces(f"{path} holds no image.")
        persons, self.labels = np.unique(self._read_labels(), return_inverse=True)
        self.names = tuple(str(person) for person in persons)
        first = decode(self._record(0).image, self.source(0))
        self.margin = margin_of(first.shape[1], first.shape[0], self.source(0))

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> Image:
        return decode_aligned(self._record(index).image, self.margin, self.source(index))

    def source(self, index: int) -> str:
        return f"{self.path}, record {self._keys[index]}"

    def _drop_headers(self) -> None:
        if len(self._keys) and self._keys[0] == 0:
            labels = self._record(0).labels
            if len(labels) > 1:
                images = (self._keys > 0) & (self._keys < labels[0])
                self._keys, self._offsets = self._keys[images], self._offsets[images]

    def _record(self, index: int) -> _Record:
        source = self.source(index)
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[index]))
            return _unpack(_read_payload(file, self._size, source), source)

    def _read_labels(self) -> npt.NDArray[np.int64]:
        """The person of each record, from its first bytes."""
        data = np.memmap(self.path, np.uint8, "r")
        labels = np.empty(len(self._offsets), np.float32)
        for start in range(0, len(labels), _AT_ONCE):
            offsets = self._offsets[start : start + _AT_ONCE]
            words = data[offsets[:, None] + np.arange(_BEGINNING)].view("<u4")
            begins = (words[:, 0] == _MAGIC) & (words[:, 1] >> 29 <= _FIRST)
            is_long = (words[:, 1] & _LENGTH) >= _BEGINNING - _FRAME.size
            wrong = np.flatnonzero(~(begins & is_long))
            if len(wrong):
                raise InvalidRecords(_misplaced(self.source(start + int(wrong[0]))))
            several = words[:, 2] > 0
            labels[start : start + _AT_ONCE] = np.where(several, words[:, 8], words[:, 3]).view(
                "<f4"
            )
        wrong = np.flatnonzero(~((np.abs(labels) < _MOST_PERSONS) & (labels == np.floor(labels))))
        if len(wrong):
            first = int(wrong[0])
            raise InvalidRecords(
                f"{self.source(first)} is labelled {labels[first]}, not with a person's number."
            )
        return labels.astype(np.int64)


def _read_payload(file: BinaryIO, size: int, source: str) -> bytes:
    """The parts of the record that begins here, in a file of `size` bytes."""
    parts: list[bytes] = []
    place = None
    while place not in (_WHOLE, _LAST):
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise InvalidRecords(f"{source} is cut off; download the file again.")
        magic, length = _FRAME.unpack(frame)
        place, length = length >> 29, length & _LENGTH
        if magic != _MAGIC or (place in (_WHOLE, _FIRST)) == bool(parts):
            raise InvalidRecords(_misplaced(source))
        if length > size - file.tell():
            raise InvalidRecords(f"{source} is cut off; download the file again.")
        parts.append(file.read(length))
        file.seek(-length % 4, os.SEEK_CUR)
    return _MAGIC.to_bytes(4, "little").join(parts)


def _unpack(payload: bytes, source: str) -> _Record:
    if len(payload) < _HEADER.size:
        raise InvalidRecords(f"{source} is too short to hold a face.")
    flag, label, _, _ = _HEADER.unpack_from(payload)
    if flag == 0:
        return _Record(np.array([label], np.float32), payload[_HEADER.size :])
    begin = _HEADER.size + _LABEL.size * flag
    if len(payload) < begin:
        raise InvalidRecords(f"{source} is too short for its {flag:,} labels.")
    return _Record(np.frombuffer(payload, "<f4", flag, _HEADER.size), payload[begin:])


def _misplaced(source: str) -> str:
    return f"{source} does not begin where the .idx says; are the files a pair?"


def _read_index(path: Path, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Keys in rising order, and where their records begin in a file of `size` bytes."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about an empty file
            lines = np.loadtxt(path, np.int64, comments=None, ndmin=2).reshape(-1, 2)
    except ValueError:
        raise InvalidRecords(
            f"{path} is no index: it has to hold lines of a key and an offset."
        ) from None
    keys, offsets = lines[np.argsort(lines[:, 0], kind="stable")].T
    if len(keys) and (keys[0] < 0 or offsets.min() < 0 or offsets.max() > size - _BEGINNING):
        raise InvalidRecords(
            f"{path} points beyond the .rec file of {size:,} bytes; one of them is cut off."
        )
    return keys, offsets
