"""The C library's allocator, told to keep what it has while a unit is under way, and to give it back after.

By default glibc gives a large freed block back to the system at once and gets it anew for the next array, page by page: with
pictures of 256 x 256 x 3 the page faults cost more than the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 32 << 20  # the most that glibc lets M_MMAP_THRESHOLD be; larger blocks go back as before


def keep_freed_memory() -> bool:
    """Lets this process reuse freed blocks of up to 32 MiB; whether its C library can.

    The process keeps at most 32 MiB that it does not use. Results do not depend on it.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and all(
        mallopt(option, KEPT_BYTES) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    )


def give_back_freed_memory() -> bool:
    """Gives the pages of all freed blocks back to the system; whether the C library can.

    Blocks that live on between freed ones split what is kept into pieces, and the next unit would take new pages beside them: so
    without it a worker grows with the units that it has done. Takes some milliseconds.
    """
    trim = _of_glibc("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where it is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
