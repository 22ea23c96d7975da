"""Dead letters: the original bytes of the records that could not be processed, each with its reason, so that they can
be driven again.

`_failed/<unit>.tar` is a webdataset tar: member `000017/photos/a.png` is the field `png` of record `photos/a`, the
17th of its unit, and `000017/photos/a.failure.json` says what was wrong. The number keeps two records apart that
share a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from transforms.errors import Reason, RecordError, UnitError
from transforms.formats.tar import TarWriter, read_tar
from transforms.ledger import FAILED_FOLDER
from transforms.record import Record

FAILURE_FIELD = "failure.json"
# Nothing in the record's bytes can cure these: the shard's structure is at fault.
STRUCTURAL = frozenset({Reason.DUPLICATE, Reason.BAD_KEY, Reason.BAD_SHARD})


@dataclass(frozen=True)
class Failure:
    """Why record `key`, the `index`-th of its unit, could not be processed."""

    key: str
    index: int
    stage: str
    reason: Reason
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "index": self.index,
            "stage": self.stage,
            "reason": str(self.reason),
            "detail": self.detail,
        }


def failed_name(unit_name: str) -> str:
    return f"{FAILED_FOLDER}/{unit_name}.tar"


def write_dead_letters(path: Path, records: Iterable[Record], failures: Mapping[int, Failure]) -> None:
    """Copies the failed records out of a second reading of the unit; no good record's bytes are ever kept for this."""
    with TarWriter(path) as archive:
        for record in records:
            failure = failures.get(record.index)
            if failure is None:
                continue
            stem = f"{record.index:06d}/{_safe_key(record.key)}"
            for field, data in record.fields.items():
                archive.write(f"{stem}.{field}", data)
            description = failure.to_json() | _origin(record)
            archive.write(f"{stem}.{FAILURE_FIELD}", json.dumps(description, sort_keys=True).encode())


def _origin(record: Record) -> dict[str, Any]:
    """The file that a loose picture came from, the shard that a record came from, and what was wanted of it."""
    wanted = None if record.wanted is None else sorted(record.wanted.items())
    origin = {"name": record.name, "shard": record.shard, "wanted": wanted}
    return {name: value for name, value in origin.items() if value is not None}


def _safe_key(key: str) -> str:
    """A key that is a valid member name; the true one stands in the failure's JSON."""
    parts = [part.replace("\\", "_") for part in PurePosixPath(key).parts if part not in ("..", "/")]
    name = "/".join(parts).partition(".")[0] if parts else ""
    return name.encode("utf-8", "replace").decode().replace("\0", "_") or "record"


def read_dead_letters(url: str) -> Iterator[Record]:
    """The failed records of a unit with their original keys, positions and file names.

    A record whose trouble lies in the shard's structure keeps its error: it needs a person.
    """
    for record in read_tar(url):
        if record.error is not None and record.error.reason is Reason.BAD_SHARD:
            raise UnitError(
                f"the dead letters {url!r} are damaged ({record.error.detail}): repair the file, or remove it"
            )
        try:
            described = json.loads(record.fields.pop(FAILURE_FIELD, b"null"))
            record.key, record.index = described["key"], described["index"]
            record.name, record.shard = described.get("name"), described.get("shard")
            record.wanted = dict(described["wanted"]) if "wanted" in described else None
            if (reason := Reason(described["reason"])) in STRUCTURAL:
                record.error = RecordError(reason, described["detail"])
        except (ValueError, TypeError, KeyError):
            number, _, key = record.key.partition("/")
            detail = f"dead letter {record.key!r} has lost its {FAILURE_FIELD}"
            if number.isdecimal() and key:
                record.key, record.index = key, int(number)
            record.error = record.error or RecordError(Reason.BAD_METADATA, detail)
        yield record
