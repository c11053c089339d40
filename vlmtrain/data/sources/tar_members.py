"""Lists the regular files of an uncompressed tar archive without extracting, decoding or following anything.

Unlike tarfile, it does not take an archive that was cut off for one that has ended.  Format: POSIX.1-1988 ustar,
POSIX.1-2001 pax headers and GNU long names.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
_MAX_NAME_BYTES = 1 << 16
_REGULAR = (b"0", b"\0", b"7")
_IGNORED = (b"5", b"g", b"K", b"V")  # folder, global pax header, GNU long link name, volume label


class BrokenTar(ValueError):
    """The archive is damaged; the message says where, but not which archive."""


@dataclass(frozen=True)
class Member:
    """A regular file inside an archive."""

    name: str
    offset: int  # bytes from the start of the archive
    size: int  # bytes


def tar_members(archive: BinaryIO) -> Iterator[Member]:
    """The regular files, in order.  BrokenTar where the archive is cut off, damaged, or holds a link."""
    end = os.fstat(archive.fileno()).st_size
    if end == 0:
        raise BrokenTar("it is empty (0 bytes)")
    position, given_name, given_size = 0, None, None
    while True:
        header = _block_at(archive, position, end)
        if header == _ZERO_BLOCK:
            return
        name, size, kind = _read_header(header, position)
        size = size if given_size is None else given_size
        start, position = position + _BLOCK, position + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if start + size > end:
            raise BrokenTar(f"it is cut off: {name!r} should end at byte {start + size}, the file ends at {end}")
        if kind == b"L":
            given_name = _bytes_at(archive, start, size).rstrip(b"\0").decode("utf-8", "replace")
        elif kind == b"x":
            fields = _read_pax(_bytes_at(archive, start, size))
            given_name, given_size = fields.get("path", given_name), _number(fields.get("size"))
        elif kind in _REGULAR:
            yield Member(given_name or name, start, size)
            given_name, given_size = None, None
        elif kind in _IGNORED:
            given_name, given_size = (given_name, given_size) if kind == b"K" else (None, None)
        else:
            raise BrokenTar(f"{name!r} is a link or a special file (type {kind!r}): only regular files are read")


def _block_at(archive: BinaryIO, position: int, end: int) -> bytes:
    archive.seek(position)
    block = archive.read(_BLOCK)
    if len(block) < _BLOCK:
        raise BrokenTar(f"it is cut off at byte {end}: the mark that ends an archive is missing")
    return block


def _bytes_at(archive: BinaryIO, start: int, size: int) -> bytes:
    if size > _MAX_NAME_BYTES:
        raise BrokenTar(f"the extended header at byte {start} has {size} bytes: at most {_MAX_NAME_BYTES} are read")
    archive.seek(start)
    return archive.read(size)


def _read_header(header: bytes, position: int) -> tuple[str, int, bytes]:
    """(name, size, type) of a header block whose checksum is right."""
    try:
        stated = int(header[148:156].strip(b" \0") or b"0", 8)
        size = _read_size(header[124:136])
    except ValueError:
        raise BrokenTar(f"there is no tar header at byte {position}") from None
    if stated != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise BrokenTar(f"the tar header at byte {position} has a wrong checksum")
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    full = prefix + b"/" + name if prefix else name
    return full.decode("utf-8", "replace"), size, header[156:157]


def _read_size(field: bytes) -> int:
    """Octal digits, or base 256 (GNU) for files from 8 GiB on."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    size = int(field.strip(b" \0") or b"0", 8)
    if size < 0:
        raise ValueError(f"size {size} is negative")
    return size


def _read_pax(text: bytes) -> dict[str, str]:
    """The records of a pax header: "<length> <name>=<value>\\n", length in bytes with itself included."""
    fields = {}
    while text:
        digits, _, _ = text.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        name, equals, value = text[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or length > len(text):
            raise BrokenTar("a pax header is damaged")
        fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        text = text[length:]
    return fields


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise BrokenTar(f"a pax header states the size {text[:40]!r}")
    return int(text)
