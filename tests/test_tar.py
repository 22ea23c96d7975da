"""webdataset tars: what we write others read, what others write we read, and damage is reported."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from transforms.errors import Reason
from transforms.formats.tar import TarWriter, read_tar, write_record
from transforms.record import split_member_name

RECORDS = {
    "photos/0001": {"degraded.png": b"noisy", "clean.png": b"clean", "json": b'{"a": 1}'},
    "photos/0002": {"degraded.png": b"", "json": b"{}"},
    "0003": {"png": b"x" * 70_000},
}


def write_shard(path: Path, records: dict[str, dict[str, bytes]]) -> TarWriter:
    with TarWriter(path) as shard:
        for key, fields in records.items():
            write_record(shard, key, fields)
    return shard


def raw_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_round_trip(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", RECORDS)
    records = list(read_tar(str(tmp_path / "a.tar")))
    assert {record.key: record.fields for record in records} == RECORDS
    assert [record.index for record in records] == [0, 1, 2]
    assert all(record.error is None for record in records)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # that reader leaves its file to the collector
def test_the_webdataset_package_reads_what_we_write(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", RECORDS)
    samples = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    found = {s["__key__"]: {name: data for name, data in s.items() if not name.startswith("__")} for s in samples}
    assert found == RECORDS


def test_we_read_what_the_webdataset_package_writes(tmp_path: Path) -> None:
    for name, compress in (("a.tar", False), ("b.tar.gz", True)):
        with webdataset.TarWriter(str(tmp_path / name), compress=compress) as sink:
            for key, fields in RECORDS.items():
                sink.write({"__key__": key} | fields)
        records = list(read_tar(str(tmp_path / name)))
        # that writer sorts a record's fields
        assert {record.key: record.fields for record in records} == RECORDS


def test_same_records_same_bytes_and_the_digest_is_of_the_file(tmp_path: Path) -> None:
    import hashlib

    first, second = write_shard(tmp_path / "a.tar", RECORDS), write_shard(tmp_path / "b.tar", RECORDS)
    data = (tmp_path / "a.tar").read_bytes()
    assert data == (tmp_path / "b.tar").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(data).hexdigest()
    assert first.bytes_written == len(data)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert all((m.mtime, m.uid, m.gid, m.uname, m.mode) == (0, 0, 0, "", 0o644) for m in archive)


def test_shards_are_the_bytes_of_tarfile(tmp_path: Path) -> None:
    """Headers are written by hand, small members in one go and large ones piece by piece."""
    keys = ("a", "photos/b", "long/" * 19 + "abcd", "long/" * 19 + "abcde", "bücher/c")
    records = {
        key: [(f"s{size}", bytes([7]) * size) for size in (0, 1, 511, 512, 2**20 - 1, 2**20 + 5)] for key in keys
    }
    with TarWriter(tmp_path / "ours.tar") as shard:
        for key, fields in records.items():
            shard.write_record(key, fields)
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for key, fields in records.items():
            for field, data in fields:
                member = tarfile.TarInfo(f"{key}.{field}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_doubled_fields_keys_and_bad_names_are_reported(tmp_path: Path) -> None:
    members = [
        ("a.png", b"1"), ("a.png", b"2"), ("b.png", b"3"), ("../c.png", b"4"), ("/d.png", b"5"), ("noextension", b"6"),
        ("e.png", b"7"), ("b.json", b"8"), ("g.png", b"9"),
    ]  # fmt: skip
    raw_tar(tmp_path / "a.tar", members)
    found = [(record.key, record.error and record.error.reason) for record in read_tar(str(tmp_path / "a.tar"))]
    assert found == [
        ("a", Reason.DUPLICATE), ("b", None), ("../c.png", Reason.BAD_KEY), ("/d.png", Reason.BAD_KEY),
        ("noextension", Reason.BAD_KEY), ("e", None), ("b", Reason.DUPLICATE), ("g", None),
    ]  # fmt: skip


def test_a_link_is_no_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)
    (record,) = read_tar(str(tmp_path / "a.tar"))
    assert record.error is not None
    assert record.error.reason is Reason.BAD_KEY


@pytest.mark.parametrize("compress", [False, True])
def test_records_before_the_damage_are_kept(tmp_path: Path, compress: bool) -> None:
    import random

    noise = random.Random(1)
    records = {f"{n:04d}": {"png": noise.randbytes(50_000)} for n in range(8)}
    write_shard(tmp_path / "a.tar", records)
    data = (tmp_path / "a.tar").read_bytes()
    cut = gzip.compress(data, mtime=0)[: len(data) // 2] if compress else data[: len(data) // 2]
    path = tmp_path / ("cut.tar.gz" if compress else "cut.tar")
    path.write_bytes(cut)
    found = list(read_tar(str(path)))
    assert found[-1].error is not None
    assert found[-1].error.reason is Reason.BAD_SHARD
    good = [record for record in found if record.error is None]
    assert 3 <= len(good) <= 4
    assert all(records[record.key] == record.fields for record in good)


def test_something_else_called_tar_is_a_bad_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>404</html>" * 100)
    (record,) = read_tar(str(tmp_path / "a.tar"))
    assert record.error is not None
    assert record.error.reason is Reason.BAD_SHARD


def test_a_missing_shard_is_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_tar(str(tmp_path / "none.tar")))


name_parts = st.text(
    st.characters(codec="ascii", categories=["L", "N"], include_characters="-_ "), min_size=1, max_size=20
)


@given(st.lists(name_parts, min_size=1, max_size=3), st.lists(name_parts, min_size=1, max_size=3))
def test_split_is_webdatasets_rule(folders: list[str], fields: list[str]) -> None:
    name = "/".join(folders) + "." + ".".join(fields)
    theirs = webdataset.tariterators.base_plus_ext(name)
    key, field = split_member_name(name)
    assert (key, field) == (theirs[0], theirs[1].lower())


def test_our_tars_are_those_of_tarfile(tmp_path: Path) -> None:
    names = [
        "a.png",
        "x/" * 30 + "b.json",
        "ü.png",
        "n" * 98 + ".p",
        "n" * 150 + ".png",
        "d" * 60 + "/" + "e" * 60 + ".p",
    ]
    with (
        TarWriter(tmp_path / "ours.tar") as ours,
        tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.PAX_FORMAT) as theirs,
    ):
        for number, name in enumerate(names):
            data = bytes(number * 300)
            ours.write(name, data)
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            theirs.addfile(info, io.BytesIO(data))
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()
