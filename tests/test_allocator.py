"""The allocator keeps freed blocks: fewer page faults for the same work."""

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
