"""How much memory a process has taken from the C library at most: exact, and without what Python itself takes.

The C library (glibc) counts the blocks that it maps one by one, now and at most, and gives each back when it is freed.
With LARGE_BLOCKS_MAPPED in its environment a process maps every block of 64 KiB and more: all tensors but the smallest,
what collectives copy, files that are read.  Code, Python's own objects and pages of mapped files are not among them.
"""

import ctypes
import os
import re
import sys
import tempfile

LARGE_BLOCKS_MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10), "MALLOC_MMAP_MAX_": str(1 << 30)}
MAPPED_NOW = 4  # the place of `hblkhd` in mallinfo(3)


class _MallocInfo(ctypes.Structure):
    _fields_ = [("numbers", ctypes.c_size_t * 10)]


def mapped_now() -> int:
    """Bytes."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _MallocInfo
    return int(library.mallinfo2().numbers[MAPPED_NOW])


def mapped_at_most() -> int:
    """Bytes, since the process began."""
    with tempfile.TemporaryFile() as told:  # malloc_stats(3) writes to standard error, and nowhere else
        sys.stderr.flush()
        standard_error = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            ctypes.CDLL(None).malloc_stats()
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        told.seek(0)
        found = re.search(rb"max mmap bytes\s*=\s*(\d+)", told.read())
    if found is None:
        raise RuntimeError("malloc_stats(3) does not tell the most that was mapped; glibc on Linux does")
    return int(found[1])
