"""Ledgers: one small file for each committed unit. It is the "done" mark and the source of every report."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from transforms.ledger_rows import RecordRows, packed, unpacked
from transforms.plain_json import plain_json, spell_infinities
from transforms.storage import OutputStore
from transforms.tallies import packed_tallies, unpacked_tallies
from transforms.units import Unit

FORMAT = 1
LEDGER_FOLDER = "_ledger"
MANIFEST = f"{LEDGER_FOLDER}/.run.json"  # how the run was started
FAILED_FOLDER = "_failed"


@dataclass
class Ledger:
    """What became of one unit. `records` has a row for every output record, `dead_letters` one for every failure."""

    unit: str
    verb: str
    fingerprint: str
    input: list[dict[str, Any]]
    sink: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    records: RecordRows = field(default_factory=RecordRows)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    samples: str | None = None
    tallies: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """The ledger as `read_ledger` gives it."""
        others: dict[str, Any] = spell_infinities(self._but_records())
        return others | {"records": self.records}

    def to_json(self) -> bytes:
        plain = self._but_records() | {"tallies": packed_tallies(self.tallies)}
        entries = {name: plain_json(value) for name, value in plain.items()} | {"records": packed(self.records)}
        return b"{%s}\n" % b", ".join(b'"%s": %s' % (name.encode(), entries[name]) for name in sorted(entries))

    def _but_records(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "records"}


def ledger_name(unit_name: str) -> str:
    return f"{LEDGER_FOLDER}/{unit_name}.json"


def samples_name(unit_name: str) -> str:
    return f"{LEDGER_FOLDER}/{unit_name}.samples.tar"


def read_ledger(store: OutputStore, unit_name: str) -> dict[str, Any] | None:
    """The ledger of a unit as plain JSON, or None where there is none that we can read."""
    return _parsed(store.read(ledger_name(unit_name)))


def _parsed(data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        ledger = json.loads(data)
    except ValueError:
        return None
    if not isinstance(ledger, dict) or ledger.get("format") != FORMAT:
        return None
    records, tallies = unpacked(ledger["records"]), unpacked_tallies(ledger.get("tallies", {}))
    return ledger | {"records": records, "tallies": tallies}


def read_ledgers(store: OutputStore, unit_names: Iterable[str], threads: int = 16) -> Iterator[dict[str, Any]]:
    """Ledgers of many units in the order of the names, a few files read ahead: parsed, one takes ten times its room."""
    names, ahead = iter(unit_names), deque[Future[bytes | None]]()
    with ThreadPoolExecutor(threads) as pool:
        for name in islice(names, threads):
            ahead.append(pool.submit(store.read, ledger_name(name)))
        while ahead:
            data = ahead.popleft().result()
            for name in islice(names, 1):
                ahead.append(pool.submit(store.read, ledger_name(name)))
            ledger = _parsed(data)
            del data
            if ledger is not None:
                yield ledger
            del ledger


def is_done(unit: Unit, ledger: Mapping[str, Any] | None, fingerprint: str, sizes: Mapping[str, int]) -> bool:
    """Whether a unit's ledger stands for this very work on this very input, with all its outputs still there.

    Args:
        sizes: name -> bytes of what the output holds now.
    """
    if ledger is None or ledger["fingerprint"] != fingerprint or ledger["input"] != unit.identity():
        return False
    return all(sizes.get(output["path"]) == output["bytes"] for output in ledger["outputs"])
