"""Reading many ledgers: in order, what can't be read left out, and never many of them in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transforms.ledger import Ledger, ledger_name, read_ledgers
from transforms.ledger_rows import RecordRows
from transforms.storage import OutputStore


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"key": f"a-p{number:05d}", "index": 0, "metrics": {"psnr[rgb,u8]": 20 + number / 7}, "width": 8}


def written(folder: Path, units: int, records: int) -> tuple[OutputStore, list[str]]:
    store, names = OutputStore(str(folder)), [f"u{number:03d}" for number in range(units)]
    for name in names:
        ledger = Ledger(name, "degrade", "f", [], "tar", records=RecordRows(rows(records)))
        store.write(ledger_name(name), ledger.to_json())
    return store, names


def test_ledgers_come_in_the_order_of_the_names_without_the_unreadable(tmp_path: Path) -> None:
    store, names = written(tmp_path, 50, 1)
    store.write(ledger_name(names[7]), b"{")
    asked = [*reversed(names), "absent"]
    found = [ledger["unit"] for ledger in read_ledgers(store, asked, threads=4)]
    assert found == [name for name in reversed(names) if name != names[7]]


def test_memory_does_not_grow_with_the_ledgers(tmp_path: Path) -> None:
    """Up to 64 of them once waited parsed, ten times as large as their files."""
    store, names = written(tmp_path, 40, 2000)
    peaks = []
    for count in (10, 40):
        tracemalloc.start()
        assert sum(len(ledger["records"]) for ledger in read_ledgers(store, names[:count], threads=4)) == 2000 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
