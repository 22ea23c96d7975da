"""What earlier runs of a unit left behind under names that this run does not use: another format, size or split.

Two formats of one pair side by side, or the last shards of a finer division, would pass for this run's. A note beside
the ledger keeps the names from before the old ledger goes until the new one stands, so that none is forgotten
whatever moment a run dies at.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from transforms.errors import RecordError
from transforms.ledger import LEDGER_FOLDER, ledger_name, read_ledger
from transforms.record import split_member_name
from transforms.storage import OutputStore


class EarlierOutputs:
    """The outputs of a unit's earlier runs.

    Args:
        plain_name: the name of the one output that this run will surely write; None if that is not known.
    """

    def __init__(self, store: OutputStore, unit_name: str, plain_name: str | None) -> None:
        self._store, self._unit_name = store, unit_name
        self._note = f"{LEDGER_FOLDER}/{unit_name}.outputs"
        self._noted = store.read(self._note)
        ledger = read_ledger(store, unit_name)
        self._known = {output["path"] for output in ledger["outputs"]} if ledger else set[str]()
        self._known |= set(json.loads(self._noted)) if self._noted else set()
        self._plain_name = plain_name

    def begin(self) -> None:
        """Takes the old ledger away: it must not vouch for what is published from here on."""
        if self._known - {self._plain_name}:
            self._write(self._known)
        self._store.remove([ledger_name(self._unit_name)])

    def announce(self, names: Sequence[str]) -> None:
        """Called before the first of the names is published. One name needs no note: it will be used again."""
        if self._noted or len(names) > 1:
            self._write(self._known | set(names))

    def _write(self, names: Iterable[str]) -> None:
        data = json.dumps(sorted(names)).encode()
        if data != self._noted:
            self._store.write(self._note, data)
            self._noted = data

    def remove_replaced(self, names: Collection[str], keys: Collection[str] | None) -> None:
        """Removes what this run, which has written `names`, has replaced.

        Args:
            keys: of the records that it wrote, if loose files were written: those of other records may by now belong to
                another unit. None takes all.
        """
        outdated = self._known - set(names)
        self._store.remove(sorted(name for name in outdated if keys is None or _key_of(name) in keys))

    def forget(self) -> None:
        """Called when the new ledger stands."""
        if self._noted:
            self._store.remove([self._note])


def _key_of(name: str) -> str | None:
    try:
        return split_member_name(name)[0]
    except RecordError:
        return None
