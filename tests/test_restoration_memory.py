"""How long a restoration holds on to a large picture: each form of it goes as soon as it is done with."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import transforms.restoration
from transforms.formats.tar import TarWriter
from transforms.pictures import EncodeOptions, Picture, encode
from transforms.restoration import RestoreJob
from transforms.restorer import Restored
from transforms.storage import OutputStore, describe_file
from transforms.streaming import Bounds
from transforms.unit_pipeline import WorkerOptions, process_unit
from transforms.units import Unit

SHAPE = (3600, 4800, 3)
PICTURE_BYTES = 3600 * 4800 * 3
RECORDS = 2


class Negative:
    """A restorer that notes how many pictures' worth of memory are in use when it is called."""

    scale = 1

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.held: list[float] = []

    def load(self) -> Negative:
        return self

    def fingerprint(self) -> dict[str, Any]:
        return {"restorer": "negative"}

    describe = fingerprint

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        self.held.append(pictures_held())
        return [Restored(~picture) for picture in samples]


def pictures_held() -> float:
    return tracemalloc.get_traced_memory()[0] / PICTURE_BYTES


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def shard_of(path: Path, fields: Sequence[str]) -> Unit:
    """Records of uncompressed pictures: encoded they weigh what they weigh decoded."""
    data, _ = encode(Picture(np.zeros(SHAPE, np.uint8), None, "bmp"), "bmp", EncodeOptions())
    with TarWriter(path) as shard:
        for number in range(RECORDS):
            for field in fields:
                shard.write(f"{number}.{field}", data)
    return Unit("large", "tar", (describe_file(str(path)),))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("fields", [["bmp"], ["degraded.bmp", "clean.bmp"]], ids=["alone", "with-reference"])
def test_a_large_picture_goes_as_soon_as_it_is_done_with(
    tmp_path: Path, fields: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restorer is called when nothing but the decoded pictures is there, the encoder when only the result is.

    Pictures are heavier than the bound, so each goes through alone, and nothing of the one before or after is there.
    """
    at_the_encoder: list[float] = []

    def noting_encode(*arguments: Any) -> Any:
        at_the_encoder.append(pictures_held())
        return encode(*arguments)

    monkeypatch.setattr(transforms.restoration, "encode", noting_encode)
    restorer = Negative()
    job = RestoreJob(restorer, metrics=("psnr[rgb,u8]",), output_format="bmp")
    unit, store = shard_of(tmp_path / "large.tar", fields), OutputStore(str(tmp_path / "out"))
    ledger = process_unit(unit, job, job.load(), store, WorkerOptions(bounds=Bounds(bytes=2**20)))
    assert ledger.counts["records_out"] == RECORDS
    # 10 MB of buffers and 1 MB crops for the report besides.
    assert restorer.held == pytest.approx([len(fields)] * RECORDS, abs=0.4)
    assert at_the_encoder == pytest.approx([1] * RECORDS, abs=0.4)
