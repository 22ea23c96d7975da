"""The ledgers of many pairs: their rows in columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pair_kit import described, job_of, records_in, run

from transforms.ledger_rows import RecordRows, packed, unpacked


def row(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"key": f"photos/{number // 16:05d}-p{number % 16:05d}", "index": number // 16, "notes": []}
    size = {"width": 128, "height": 128, "channels": 3, "bits": 8}
    return plain | size | {"metrics": {"psnr[rgb,u8]": 20 + number / 7}} | changes


def test_packed_rows_are_the_same_rows() -> None:
    rows = [row(n) for n in range(200)]
    rows[7] = row(7, notes=["alpha dropped"], metrics={})
    rows[9] = row(9, metrics={"psnr[rgb,u8]": float("inf"), "ssim[rgb,u8]": 0.5})
    kept = RecordRows(rows)
    assert list(kept) == rows
    assert kept[9] == rows[9]
    assert kept[-1] == rows[-1]
    assert kept[3:6] == rows[3:6]
    assert list(unpacked(json.loads(packed(kept)))) == rows
    assert isinstance(json.loads(packed(RecordRows(rows[:20]))), list)


def test_a_million_pairs_have_ledgers_of_megabytes() -> None:
    data = packed(RecordRows(row(n) for n in range(20_000)))
    assert len(data) / 20_000 < 60  # as objects they took 150


def test_a_ledger_of_many_pairs_is_read_as_it_was_written(shard: Path, tmp_path: Path) -> None:
    ledger = run(job_of(patches_per_image=30, patch_size=16), shard, tmp_path / "out")
    assert isinstance(json.loads((tmp_path / "out" / "_ledger" / "s.json").read_text())["records"], dict)
    assert len(ledger["records"]) == 180
    first = ledger["records"][0]
    assert first["key"] == "00-p00000"
    assert (
        first["metrics"]["psnr[rgb,u8]"]
        == described(records_in(tmp_path / "out")["00-p00000"])["metrics"]["psnr[rgb,u8]"]
    )
