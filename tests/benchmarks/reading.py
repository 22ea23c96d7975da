"""Reading pages with Tesseract, and counting the characters that it got wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TESSERACT = shutil.which("tesseract")
ENLARGED = 2  # 120 to 150 dpi become the 240 to 300 that Tesseract was made for


def read_block(samples: NDArray[np.uint8]) -> str:
    """The text of a picture with one block of text, H x W x 3, words one space apart.

    Raises:
        RuntimeError: no Tesseract here, or it fails.
    """
    if TESSERACT is None:
        raise RuntimeError("no tesseract here; apt-get install tesseract-ocr")
    picture, buffer = Image.fromarray(samples), BytesIO()
    size = (picture.width * ENLARGED, picture.height * ENLARGED)
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG", compress_level=1)
    command = [TESSERACT, "stdin", "stdout", "--psm", "6", "--dpi", "300", "-l", "eng"]
    one_thread = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, env=one_thread, check=False)
    if done.returncode:
        raise RuntimeError(f"tesseract ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
    return words_of(done.stdout.decode("utf-8", "replace"))


def words_of(text: str) -> str:
    """The text in one line, words one space apart."""
    return " ".join(text.split())


def character_error(truth: str, read: str) -> float:
    """Edits that turn `read` into `truth` over the length of `truth`, at most 1 (Levenshtein 1966; clipped as Hradis et al.)."""
    if not truth:
        raise ValueError("an empty text has no character error")
    return min(1.0, edits(truth, read) / len(truth))


def edits(first: str, second: str) -> int:
    """Insertions, deletions and replacements between two texts, the fewest: a row of the usual table at a time."""
    codes, places = np.array([ord(each) for each in second], np.int64), np.arange(len(second) + 1)
    row = places.copy()
    for number, each in enumerate(first, 1):
        above = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(each)))
        row = np.concatenate([[number], above])
        row = np.minimum.accumulate(row - places) + places  # then insertions, from left to right
    return int(row[-1])
