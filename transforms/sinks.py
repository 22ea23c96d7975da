"""Where a unit's results go: one tar, single files, or nowhere (a run that only measures)."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from transforms.errors import UnitError
from transforms.formats.tar import TarWriter, read_tar
from transforms.storage import OutputStore
from transforms.work import Finished, SinkKind


class Sink(Protocol):
    """Takes finished records in order; `publish` puts everything under its final name."""

    def write(self, finished: Finished) -> None: ...

    def publish(self) -> list[dict[str, Any]]:
        """Returns path, bytes and sha256 of each output."""
        ...

    def close(self) -> None:
        """Lets go of local files, published or not."""
        ...


def open_sink(
    kind: SinkKind, unit_name: str, store: OutputStore, folder: Path, retried: Mapping[str, Any] | None
) -> Sink:
    """Opens a sink; `retried` is the ledger of a unit whose dead letters are being driven again."""
    if kind == "none":
        return NullSink()
    if kind in ("folder", "subfolder"):
        prefix = f"{unit_name}/" if kind == "subfolder" else ""
        return FolderSink(store, prefix, list(retried["outputs"]) if retried else [])
    if retried is not None:
        return MergingTarSink(unit_name, store, folder, retried)
    return TarSink(unit_name, store, folder)


class NullSink:
    def write(self, finished: Finished) -> None:
        pass

    def publish(self) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        pass


class FolderSink:
    """Loose files. Each appears whole as soon as it is finished; the ledger after all of them says that the unit is
    done."""

    def __init__(self, store: OutputStore, prefix: str, outputs: list[dict[str, Any]]) -> None:
        self._store = store
        self._prefix = prefix
        self._outputs = {output["path"]: output for output in outputs}

    def write(self, finished: Finished) -> None:
        for base_name, data in finished.outputs:
            name = self._prefix + base_name
            self._store.write(name, data)
            self._outputs[name] = {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def publish(self) -> list[dict[str, Any]]:
        return list(self._outputs.values())

    def close(self) -> None:
        pass


class TarSink:
    """One webdataset shard, built in a local file and published when it is complete."""

    def __init__(self, unit_name: str, store: OutputStore, folder: Path) -> None:
        self._name = f"{unit_name}.tar"
        self._store = store
        self._path = folder / "shard.tar"
        self._shard = TarWriter(self._path)

    def write(self, finished: Finished) -> None:
        for name, data in finished.outputs:
            self._shard.write(name, data)

    def publish(self) -> list[dict[str, Any]]:
        self._shard.close()
        self._store.publish(self._path, self._name)
        return [{"path": self._name, "bytes": self._shard.bytes_written, "sha256": self._shard.sha256}]

    def close(self) -> None:
        self._shard.close()


class MergingTarSink:
    """Adds recovered records to an existing shard, each at the place where it would have stood."""

    def __init__(self, unit_name: str, store: OutputStore, folder: Path, retried: Mapping[str, Any]) -> None:
        self._url = store.url(f"{unit_name}.tar")
        self._recovered = folder / "recovered.tar"
        self._writer = TarWriter(self._recovered)
        self._merged = TarSink(unit_name, store, folder)
        self._old_indices = {row["key"]: row["index"] for row in retried["records"]}
        self._new_indices: dict[str, int] = {}
        self._in_order = True
        self._last_index = -1

    def write(self, finished: Finished) -> None:
        self._in_order = self._in_order and finished.index >= self._last_index
        self._last_index = finished.index
        for row in finished.rows:
            self._new_indices[row["key"]] = finished.index
        for name, data in finished.outputs:
            self._writer.write(name, data)

    def publish(self) -> list[dict[str, Any]]:
        self._writer.close()
        lost = set(self._old_indices) - {key for _, key, _ in _members(self._url, self._old_indices)}
        if lost:
            raise UnitError(
                f"the shard {self._url!r} lacks {len(lost)} records that its ledger has, {sorted(lost)[0]!r} among them: "
                "run the first command again instead of 'retry'"
            )
        # A record of the shard that the ledger does not know was recovered by a retry that died before its ledger: it
        # is made again.
        old = _members(self._url, self._old_indices)
        new = _members(str(self._recovered), self._new_indices)
        if not self._in_order:  # dead letters that a person packed anew: these few are held in memory
            new = iter(sorted(new, key=_order))
        for index, key, outputs in heapq.merge(old, new, key=_order):
            self._merged.write(Finished(key, index, outputs, []))
        return self._merged.publish()

    def close(self) -> None:
        self._writer.close()
        self._merged.close()


def _members(url: str, indices: Mapping[str, int]) -> Iterator[tuple[int, str, list[tuple[str, bytes]]]]:
    for record in read_tar(url):
        if record.key in indices:
            yield (
                indices[record.key],
                record.key,
                [(f"{record.key}.{field}", data) for field, data in record.fields.items()],
            )


def _order(entry: tuple[int, str, list[tuple[str, bytes]]]) -> int:
    return entry[0]
