"""The allocator keeps freed blocks, for fewer page faults, until it is told to give them back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
import numpy as np
from transforms.allocator import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for side in (256, 300, 280, 512, 260) * 20:  # blocks of changing size, as a chain of operators asks for them
        np.ones((side, side, 3), np.float32) + np.ones((side, side, 3), np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touched()
print(touched())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pictures_are_not_paged_in_again_and_again():
    root = Path(__file__).parents[1]

    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FAULTS, *arguments]
        found = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True, timeout=60)
        return int(found.stdout)

    assert faults("keep") < 0.2 * faults() + 100


KEPT = """
import ctypes
from transforms.allocator import give_back_freed_memory, keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [libc.malloc(1 << 20) for _ in range(64)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[:-1]:  # the last one keeps the heap's end where it is
    libc.free(block)
before = resident()
assert give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_free_memory_between_blocks_in_use_is_given_back():
    command = [sys.executable, "-c", KEPT]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True, timeout=60
    )
    assert int(found.stdout) > 48 << 20
