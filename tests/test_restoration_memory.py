"""How long a restoration holds on to a large picture: in memory there is room for two of it, not for three."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from transforms.formats.tar import TarWriter
from transforms.pictures import EncodeOptions, Picture, encode
from transforms.restoration import RestoreJob
from transforms.restorer import Restored
from transforms.storage import OutputStore, describe_file
from transforms.streaming import Bounds
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit

HEIGHT, WIDTH = 3600, 4800


class Negative:
    """A restorer that needs no memory but its result's."""

    scale = 1
    counters: Counter[str] = Counter()

    def load(self) -> Negative:
        return self

    def fingerprint(self) -> dict[str, Any]:
        return {"restorer": "negative"}

    describe = fingerprint

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        return [Restored(~picture) for picture in samples]


def shard_of(path: Path, fields: Sequence[str], records: int) -> Unit:
    """Records of noise, which a PNG cannot make smaller."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data, _ = encode(Picture(noise, None, "png"), "png", EncodeOptions())
    with TarWriter(path) as shard:
        for number in range(records):
            for field in fields:
                shard.write(f"{number}.{field}", data)
    return Unit("large", "tar", (describe_file(str(path)),))


@pytest.mark.parametrize(
    ("fields", "pictures_held"), [(["png"], 2.3), (["degraded.png", "clean.png"], 3.3)], ids=["alone", "with-reference"]
)
def test_a_large_picture_goes_as_soon_as_it_is_done_with(
    tmp_path: Path, fields: Sequence[str], pictures_held: float
) -> None:
    """The encoded input goes when it is decoded, the damaged picture and the reference when they are measured.

    At most: input and result (and reference), or one of them in plain and encoded form. The bound is far below the
    weight of a picture, so each goes through alone, and three of them take no more than one.
    """
    unit = shard_of(tmp_path / "large.tar", fields, records=2)
    job, store = RestoreJob(Negative(), metrics=("psnr[rgb,u8]",)), OutputStore(str(tmp_path / "out"))
    gc.collect()
    tracemalloc.start()
    try:
        ledger = process_unit(unit, job, job.load(), store, WorkerOptions(bounds=Bounds(bytes=2**20)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print("PEAK", peak / (HEIGHT * WIDTH * 3))
    assert ledger.counts["records_out"] == 2
    assert peak / (HEIGHT * WIDTH * 3) < pictures_held
