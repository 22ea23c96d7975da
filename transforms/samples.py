"""The few pictures of a unit that the report may show: its best and worst records, as small crops."""

from __future__ import annotations

import heapq
import io
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import (
    Image,
    WebPImagePlugin,  # noqa: F401 - registers itself; else Pillow imports all its forty plugins to find it
)

from transforms.formats.tar import TarWriter
from transforms.pictures import Samples, to_u8
from transforms.work import Sample

CROP_WIDTH, CROP_HEIGHT = 640, 480
KEPT_EACH_WAY = 3
MOST_WITHOUT_FIGURES = 12  # of small pictures; of large ones, as many as are kept where there are figures
_SMALL_PIXELS = 64 * 64  # pages show such a crop much enlarged, and there the codec's halved chroma would be seen


def crop_for_report(samples: Samples, scale: int | Fraction = 1) -> Samples:
    """The middle of a picture in 8 bit, at most 640x480, copied so that the picture itself can go.

    `scale` is the picture's size relative to the restored one's, so that crops before and after show the same place.
    """
    height, width = samples.shape[:2]
    crop_height, crop_width = min(height, int(CROP_HEIGHT / scale)), min(width, int(CROP_WIDTH / scale))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return to_u8(samples[top : top + crop_height, left : left + crop_width]).copy()


@dataclass
class SampleKeeper:
    """Keeps the samples of the lowest and highest figures seen; without figures, the first ones, as many as are as large as
    the largest crops that are kept otherwise."""

    kept_each_way: int = KEPT_EACH_WAY
    _lowest: list[tuple[float, int, Sample]] = field(default_factory=list)
    _highest: list[tuple[float, int, Sample]] = field(default_factory=list)
    _first: list[Sample] = field(default_factory=list)
    _is_full: bool = False
    _seen: int = 0

    def offer(self, sample: Sample) -> None:
        self._seen += 1
        if sample.figure is None or math.isnan(sample.figure):
            self._offer_first(sample)
            return
        # Heaps of fixed size; the running number makes ties deterministic and keeps samples out of comparisons.
        for heap, rank in ((self._lowest, -sample.figure), (self._highest, sample.figure)):
            entry = (rank, -self._seen, sample)
            if len(heap) < self.kept_each_way:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def _offer_first(self, sample: Sample) -> None:
        if self._is_full and sample.turn >= self._first[-1].turn:
            return
        samples = sorted([*self._first, sample], key=_turn)  # stable: first come, first served
        room = 2 * self.kept_each_way * CROP_WIDTH * CROP_HEIGHT
        pixels = [max(math.prod(crop.shape[:2]) for crop in each.crops.values()) for each in samples]
        fitting = sum(reached <= room for reached in accumulate(pixels))
        self._first = samples[: min(fitting, MOST_WITHOUT_FIGURES)]
        self._is_full |= len(self._first) < len(samples)

    def kept(self) -> list[Sample]:
        chosen = {sample.key: sample for _, _, sample in sorted(self._lowest, reverse=True)}
        chosen |= {sample.key: sample for _, _, sample in sorted(self._highest, reverse=True)}
        chosen |= {sample.key: sample for sample in self._first}
        return list(chosen.values())

    def write(self, path: Path) -> bool:
        """Writes the kept samples as a tar of WebP pictures; False where there is nothing to show."""
        samples = self.kept()
        if not samples:
            return False
        with TarWriter(path) as archive:
            for sample in samples:
                for role, crop in sample.crops.items():
                    archive.write(f"{sample.key}.{role}.webp", encode_thumbnail(crop))
                if sample.caption:
                    archive.write(f"{sample.key}.caption.json", json.dumps(sample.caption).encode())
        return True


def _turn(sample: Sample) -> int:
    return sample.turn


def encode_thumbnail(crop: Samples) -> bytes:
    pixels = np.ascontiguousarray(crop[..., 0] if crop.shape[2] == 1 else crop)
    encoded = io.BytesIO()
    # Method 0 takes two thirds of the time of method 2 for files a tenth larger; samples took a fifth of all overhead.
    lossless = pixels.shape[0] * pixels.shape[1] <= _SMALL_PIXELS
    Image.fromarray(pixels).save(encoded, "WEBP", lossless=lossless, quality=0 if lossless else 85, method=0)
    return encoded.getvalue()
