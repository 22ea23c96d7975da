"""Patterns in, whole files out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import braceexpand
import fsspec
import pytest

from transforms.errors import ConfigurationError
from transforms.storage import OutputStore, describe_file, expand_braces, expand_inputs, list_files


@pytest.mark.parametrize(
    "pattern",
    ["a.tar", "s-{000..012}.tar", "s-{8..11}.tar", "{a,b}/{1..2}.tar", "{3..1}", "x{a,,b}y", "gs://b/{00..01}/t"],
)
def test_braces_expand_as_the_webdataset_package_expands_them(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand.braceexpand(pattern))


def test_inputs_expand_globs_lists_and_commas(tmp_path: Path) -> None:
    for name in ("a-000.tar", "a-001.tar", "b.tar"):
        (tmp_path / name).write_bytes(b"x")
    listing = tmp_path / "list.txt"
    listing.write_text(f"# comment\n\n{tmp_path}/b.tar\n{tmp_path}/a-{{000..001}}.tar\n")
    expected = [f"{tmp_path}/{name}" for name in ("a-000.tar", "a-001.tar", "b.tar")]
    assert expand_inputs(f"{tmp_path}/a-*.tar,{tmp_path}/b.tar") == expected
    assert expand_inputs(f"{tmp_path}/a-{{000,001}}.tar,{tmp_path}/b.tar") == expected
    assert sorted(expand_inputs(f"@{listing}")) == expected


@pytest.mark.parametrize(
    "missing", ["nowhere/*.tar", "nowhere/a.tar", "@nowhere/list.txt", "memory://nowhere/x.png", "zz9://x/y.tar"]
)
def test_what_is_not_there_is_named(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere|zz9"):
        expand_inputs(missing)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    return OutputStore(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


def test_publish_and_write_then_read(store: OutputStore) -> None:
    with store.scratch() as folder:
        (folder / "shard").write_bytes(b"whole")
        store.publish(folder / "shard", "deep/er/a.tar")
    store.write("b.json", b"{}")
    store.write("b.json", b"{1}")  # replaces
    assert store.read("deep/er/a.tar") == b"whole"
    assert store.read("b.json") == b"{1}"
    assert store.read("c.json") is None
    assert [name for name, _ in list_files(store.root)] == ["b.json", "deep/er/a.tar"]
    store.remove(["b.json", "never-there"])
    assert store.names("") == ["deep/er/a.tar"]


def test_a_store_travels_as_its_url_only(store: OutputStore) -> None:
    import pickle

    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"
    assert pickle.dumps(store).count(b"memory") <= 1


def test_an_unwritable_output_is_refused_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot write"):
        OutputStore(str(tmp_path / "file" / "out")).check_writable()


def test_nothing_appears_under_the_final_name_before_it_is_whole(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path / "out"))
    with suppress(RuntimeError), store.scratch() as folder:
        (folder / "shard").write_bytes(b"half")
        raise RuntimeError
    assert store.names("") == []


def test_sweep_leaves_young_scratch_alone(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    with store.scratch() as folder:
        now = folder.stat().st_mtime
        store.sweep(older_than_s=100, now_s=now + 99)
        assert folder.exists()
        store.sweep(older_than_s=100, now_s=now + 101)
        assert not folder.exists()


def test_a_changed_file_has_another_identity(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before = describe_file(str(path))
    assert describe_file(str(path)) == before
    os.utime(path, (1, 1))
    assert describe_file(str(path)) != before
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/identity/a", b"1")
    assert describe_file("memory://identity/a").size == 1
