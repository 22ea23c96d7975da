"""Global shuffling that moves references, never pixels: the driver deals all pairs of all pictures out to the output shards.

The place of a pair is a random number that follows from (seed, key of the picture, number of the pair): a picture more or
less changes the shards that its pairs fall into, and no pair in them. The price is paid in decoding: a picture is read
and decoded once for each shard that has a pair of it, with many shards once for each pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from transforms.errors import ConfigurationError, RecordError
from transforms.formats.open_files import OpenFiles
from transforms.formats.tar_index import tar_members
from transforms.ledger import LEDGER_FOLDER
from transforms.randomness import generator
from transforms.record import source_field, split_member_name
from transforms.references import PackedList, Piece, Source, pack_list
from transforms.storage import InputFile, OutputStore, in_parallel
from transforms.units import Member, Plan, Unit

PREFIX = "shuffled-"
LISTS_FOLDER = f"{LEDGER_FOLDER}/.shuffle"
# Default size of a shard: large enough to be read in one go, small enough that many workers find something to do.
PAIRS_PER_SHARD = 4096
_FEWEST_SHARDS, _FEWEST_PAIRS = 16, 256


def shuffled(plan: Plan, store: OutputStore, *, pairs_each: int, seed: int, shards: int = 0) -> Plan:
    """A plan whose units are shards of pairs in random order, made of the pictures of another plan.

    Args:
        pairs_each: of each picture, patches and variants.
        shards: how many, about equal; 0 chooses by the number of pairs.

    Raises:
        ConfigurationError: an input that can't be read picture by picture (compressed, damaged, no tar), a key that two
            shards have, or more shards than pairs.
    """
    sources = sorted(_sources(plan), key=_key_of)
    _refuse_twins(sources)
    pairs = len(sources) * pairs_each
    shards = shards or max(-(-pairs // PAIRS_PER_SHARD), min(_FEWEST_SHARDS, -(-pairs // _FEWEST_PAIRS)))
    if not 0 < shards <= pairs:
        raise ConfigurationError(f"--shards {shards} can't be had of {pairs} pairs; choose from 1 to {pairs}")
    units, lists = [], {}
    for number, owned in enumerate(_deal(sources, pairs_each, seed, shards)):
        if not len(owned):  # a few pairs may leave one out
            continue
        name = f"{PREFIX}{number:05d}"
        packed = _list_of(sources, owned, pairs_each)
        lists[list_name(name)] = packed.data
        units.append(Unit(name, "references", (InputFile(store.url(list_name(name)), packed.bytes_in, packed.digest),)))
    urls = tuple(sorted({piece.file.url for source in sources for piece in source.pieces}))
    return Plan(tuple(units), plan.ignored, folders=plan.folders, lists=lists, sources=urls)


def list_name(unit_name: str) -> str:
    """Where the list of a unit lies in the output."""
    return f"{LISTS_FOLDER}/{unit_name}.json.gz"


def _deal(sources: Sequence[Source], pairs_each: int, seed: int, shards: int) -> Iterator[NDArray[np.int64]]:
    """For each shard the numbers `source * pairs_each + pair` of its pairs, in the order of their places."""
    draws = np.empty((len(sources), pairs_each), np.uint64)
    for row, source in zip(draws, sources, strict=True):
        row[:] = generator(seed, f"shuffle/{source.key}").bit_generator.random_raw(pairs_each)
    order = np.argsort(draws.ravel(), kind="stable").astype(np.int64)
    # The shard follows from the draw alone, as its place in the whole range: so shards differ a little in size, as coin
    # tosses do.
    shard = ((draws.ravel()[order] >> np.uint64(32)) * np.uint64(shards)) >> np.uint64(32)
    ends = np.searchsorted(shard, np.arange(shards, dtype=np.uint64), side="right")
    yield from np.split(order, ends[:-1])


def _list_of(sources: Sequence[Source], owned: NDArray[np.int64], pairs_each: int) -> PackedList:
    places: dict[int, dict[int, int]] = {}
    for place, number in enumerate(owned.tolist()):
        source, pair = divmod(number, pairs_each)
        places.setdefault(source, {})[pair] = place
    # Read as they lie: the fewest seeks.
    in_order = sorted(places, key=lambda number: _position(sources[number]))
    return pack_list([(sources[number], dict(sorted(places[number].items()))) for number in in_order])


def _position(source: Source) -> tuple[str, int, str]:
    first = source.pieces[0]
    return first.file.url, first.offset, source.key


def _key_of(source: Source) -> str:
    return source.key


def _refuse_twins(sources: Sequence[Source]) -> None:
    for key, group in groupby(sources, key=_key_of):
        shards = [source.shard or "the loose files" for source in group]
        if len(shards) > 1:
            raise ConfigurationError(
                f"the key {key!r} stands in {' and in '.join(shards[:2])}; --shuffle mixes all shards, where a key may "
                "stand once: rename the records, or leave out --shuffle"
            )


def _sources(plan: Plan) -> Iterator[Source]:
    tars = {unit.files[0].url: unit for unit in plan.units if unit.kind == "tar"}
    for unit in plan.units:
        if unit.kind not in ("tar", "folder"):
            url = unit.files[0].url
            raise ConfigurationError(f"--shuffle picks single pictures out of tars and folders, not out of {url!r}")
    indexed = in_parallel(lambda url: _of_tar(tars[url]), list(tars))
    yield from (source for sources in indexed for source in sources)
    for unit in plan.units:
        if unit.kind == "folder":
            for _, group in groupby(unit.members, key=lambda member: member.key):
                yield _of_files(tuple(group))


def _of_tar(unit: Unit) -> list[Source]:
    """The records of a plain tar, by its headers."""
    file = unit.files[0]
    files = OpenFiles()
    remedy = "repair it, leave it out, or do without --shuffle"
    groups: dict[str, list[Piece]] = {}
    previous = None
    try:
        for member in tar_members(file.url, files):
            key, field = split_member_name(member.name)
            if key != previous and key in groups:
                raise ConfigurationError(f"the key {key!r} stands twice in the shard {file.url!r}: {remedy}")
            if member.offset + member.size > file.size:
                raise ConfigurationError(f"the shard {file.url!r} ends inside of {member.name!r}: {remedy}")
            groups.setdefault(key, []).append(Piece(field, file, member.offset, member.size))
            previous = key
    except RecordError as error:
        raise ConfigurationError(f"the shard {file.url!r} is damaged: {error.detail}; {remedy}") from error
    finally:
        files.close()
    return [Source(key, unit.name, _needed(pieces)) for key, pieces in groups.items()]


def _of_files(members: Sequence[Member]) -> Source:
    pieces = [Piece(member.field, member.file, 0, member.file.size, member.name) for member in members]
    return Source(members[0].key, None, _needed(pieces))


def _needed(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The piece with the source picture; all of them where that is not clear, which the worker will say."""
    fields = {piece.field: b"" for piece in pieces}
    try:
        chosen = source_field(fields)
    except RecordError:
        return tuple(pieces)
    found = tuple(piece for piece in pieces if piece.field == chosen)
    return found if len(found) == 1 else tuple(pieces)
