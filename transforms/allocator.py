"""The C library's allocator, told to keep what it has.

By default glibc gives a large freed block back to the system at once and gets it anew for the next array, page by page: with
pictures of 256 x 256 x 3 the page faults cost more than the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 32 << 20  # the most that glibc lets M_MMAP_THRESHOLD be; larger blocks go back as before


def keep_freed_memory() -> bool:
    """Lets this process reuse freed blocks of up to 32 MiB; whether its C library can.

    The process keeps at most 32 MiB that it does not use. Results do not depend on it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return False
    return all(mallopt(option, KEPT_BYTES) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
