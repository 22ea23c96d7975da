"""What earlier runs left behind under names that this run does not use: another format, size, cut or split.

Two formats of one pair side by side, or the last shards of a finer division, would pass for this run's. A note beside
the ledger keeps the names from before the old ledger goes until the new one stands, so that none is forgotten
whatever moment a run dies at. What one unit can't know, whether another unit has made a file anew by now, is decided when all
units are done: `remove_replaced` then takes away what no ledger of the run lists.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from transforms.dead_letters import failed_name
from transforms.errors import RecordError
from transforms.ledger import LEDGER_FOLDER, MANIFEST, ledger_name, read_ledger, read_ledgers, samples_name
from transforms.record import split_member_name
from transforms.shuffle import LISTS_FOLDER, list_name
from transforms.storage import OutputStore, filesystem_of

_LEDGER, _NOTE = ".json", ".outputs"
_NOT_UNITS = (MANIFEST.removeprefix(f"{LEDGER_FOLDER}/"), LISTS_FOLDER.removeprefix(f"{LEDGER_FOLDER}/") + "/")


class EarlierOutputs:
    """The outputs of a unit's earlier runs.

    Args:
        plain_name: the name of the one output that this run will surely write, and the same command again after a death;
            None if that is not known.
    """

    def __init__(self, store: OutputStore, unit_name: str, plain_name: str | None = None) -> None:
        self._store, self._unit_name = store, unit_name
        self._note = note_name(unit_name)
        self._noted = store.read(self._note)
        ledger = read_ledger(store, unit_name)
        self._known = {output["path"] for output in ledger["outputs"]} if ledger else set[str]()
        self._known |= set(json.loads(self._noted)) if self._noted else set()
        self._plain_name = plain_name
        self._left: set[str] = set()

    def begin(self) -> None:
        """Takes the old ledger away: it must not vouch for what is published from here on."""
        if self._known:  # even if it is the one name that will be used again: the next run may be another one
            self._write(self._known)
        self._store.remove([ledger_name(self._unit_name)])

    def announce(self, names: Sequence[str]) -> None:
        """Called before the first of the names is published. The one name that every run of this kind uses needs no note."""
        if self._noted or set(names) - {self._plain_name}:
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
                another unit, and stay noted. None takes all.
        """
        outdated = self._known - set(names)
        removed = {name for name in outdated if keys is None or _key_of(name) in keys}
        self._store.remove(sorted(removed))
        self._left = outdated - removed

    def forget(self) -> None:
        """Called when the new ledger stands."""
        if self._left:
            self._write(self._left)
        elif self._noted:
            self._store.remove([self._note])


def _key_of(name: str) -> str | None:
    try:
        return split_member_name(name)[0]
    except RecordError:
        return None


def note_name(unit_name: str) -> str:
    """Where the names of a unit's earlier outputs stand."""
    return f"{LEDGER_FOLDER}/{unit_name}{_NOTE}"


def units_in(store: OutputStore) -> set[str]:
    """Names of the units of any run that have a ledger, or a note of their outputs."""
    names = store.names(LEDGER_FOLDER)
    return _units_with(_LEDGER, names) | _units_with(_NOTE, names)


def _units_with(ending: str, names: Iterable[str]) -> set[str]:
    """Units by their files of one kind in the folder of the ledgers."""
    return {name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(_NOT_UNITS)}


@dataclass
class _Earlier:
    """A unit that is not in the plan, or one that is and has a note; what its ledger and note say of it."""

    unit: str
    outputs: set[str]
    inputs: set[str] = field(default_factory=set)
    is_planned: bool = False
    has_ledger: bool = False


def remove_replaced(store: OutputStore, planned: Collection[str], verb: str, *, only_recut: bool) -> int:
    """Removes what earlier runs of the verb have left in an output whose run is complete: the outputs that a ledger or a note
    of ours lists and no ledger of the run does; of units that are not in the plan also dead letters and samples, and then
    their ledgers. A death in between leaves ledgers that say what is still to do.

    Args:
        planned: names of the run's units.
        only_recut: results of inputs that the run does not have stay, with the ledgers of their units.

    Returns:
        The number of outputs removed; 0 also where a unit has no ledger, so that the run is not complete.
    """
    filesystem_of(store.root)[0].invalidate_cache()  # listed before the workers wrote their ledgers
    names, planned = store.names(LEDGER_FOLDER), set(planned)
    with_ledger, with_note = _units_with(_LEDGER, names), _units_with(_NOTE, names)
    if planned - with_ledger:
        return 0
    units = sorted((with_ledger - planned) | with_note)
    found = [each for unit in units if (each := _read(store, unit, verb, is_planned=unit in planned)) is not None]
    if not found:
        return 0
    outputs = set[str]().union(*(each.outputs for each in found))
    inputs = set[str]().union(*(each.inputs for each in found))
    for ledger in read_ledgers(store, sorted(planned)):  # never all of them in memory
        outputs.difference_update(output["path"] for output in ledger["outputs"])
        inputs.difference_update(_urls(ledger["input"]))
    removed = 0
    for each in found:
        if only_recut and not each.is_planned and (not each.has_ledger or each.inputs & inputs):
            continue  # of pictures that left the input
        if not (only_recut and each.is_planned):
            replaced = sorted(each.outputs & outputs)
            store.remove(replaced)
            _remove_empty_folders(store, replaced)
            removed += len(replaced)
        others = [failed_name(each.unit), samples_name(each.unit), list_name(each.unit)]
        store.remove([] if each.is_planned else others)
        store.remove([note_name(each.unit), *([] if each.is_planned else [ledger_name(each.unit)])])
    return removed


def _read(store: OutputStore, unit: str, verb: str, *, is_planned: bool) -> _Earlier | None:
    """None for what is not ours, or of another verb, or can't be read: that stays."""
    note = store.read(note_name(unit))
    noted = set(json.loads(note)) if note else set[str]()
    if is_planned:
        return _Earlier(unit, noted, is_planned=True)
    ledger = read_ledger(store, unit)
    if ledger is None:
        has_ledger = store.read(ledger_name(unit)) is not None
        return _Earlier(unit, noted) if note and not has_ledger else None
    if ledger["unit"] != unit or ledger["verb"] != verb:
        return None
    listed = {output["path"] for output in ledger["outputs"]}
    return _Earlier(unit, noted | listed, _urls(ledger["input"]), has_ledger=True)


def _urls(described: Iterable[dict[str, str]]) -> set[str]:
    return {file["url"] for file in described if "url" in file}


def _remove_empty_folders(store: OutputStore, removed: Iterable[str]) -> None:
    """Folders of removed files that are empty now; in object stores there are none."""
    if not store.is_local:
        return
    folders = {parent for name in removed for parent in Path(name).parents if parent.parts}
    for folder in sorted(folders, key=_depth, reverse=True):
        with suppress(OSError):  # only an empty one goes
            Path(store.path(str(folder))).rmdir()


def _depth(folder: Path) -> int:
    return len(folder.parts)
