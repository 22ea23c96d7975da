"""Planning: what is one unit, what is one record, and what changes when the input does."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.errors import ConfigurationError
from transforms.storage import InputFile
from transforms.units import Member, Plan, assign_members, group_members, plan_units


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def assigned(*names: str) -> dict[str, dict[str, str]]:
    members, _ = assign_members((name, InputFile(name, 1, "")) for name in names)
    found: dict[str, dict[str, str]] = {}
    for member in members:
        found.setdefault(member.key, {})[member.field] = member.name
    return found


def test_every_tar_is_a_unit_named_after_it(tmp_path: Path) -> None:
    touch(tmp_path, "00000.tar", "00001.tar.gz", "sub/x.tgz", "notes.txt")
    plan = plan_units(str(tmp_path))
    assert [(unit.name, unit.kind) for unit in plan.units] == [("00000", "tar"), ("00001", "tar"), ("x", "tar")]
    assert plan.ignored == ("notes.txt",)


def test_tars_of_the_same_name_take_their_folders_along(tmp_path: Path) -> None:
    touch(tmp_path, "a/00000.tar", "b/00000.tar")
    assert [unit.name for unit in plan_units(str(tmp_path)).units] == ["a/00000", "b/00000"]


def test_two_shards_for_one_output_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar", "a.tar.gz")
    with pytest.raises(ConfigurationError, match=r"would all write the output 'a'"):
        plan_units(str(tmp_path))


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "readme.md")
    with pytest.raises(ConfigurationError, match="no tar shard and no picture"):
        plan_units(str(tmp_path))


def test_our_own_bookkeeping_is_no_input(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a.png",
        "_ledger/x.samples.tar",
        "_failed/x.tar",
        "report/index.html",
        "_tmp/1/b.png",
        ".hidden/c.png",
    )
    plan = plan_units(str(tmp_path))
    assert [member.name for unit in plan.units for member in unit.members] == ["a.png"]


def test_roles_make_one_record_and_other_pictures_stand_alone() -> None:
    names = ("d/1.clean.png", "d/1.degraded.jpg", "d/1.json", "d/1.kernel.npy", "d/2.png", "d/2.json")
    assert assigned(*names) == {
        "d/1": {
            "clean.png": "d/1.clean.png", "degraded.jpg": "d/1.degraded.jpg", "json": "d/1.json", "kernel.npy": "d/1.kernel.npy",
        },
        "d/2": {"png": "d/2.png"},
    }  # fmt: skip


def test_dots_in_the_names_of_loose_pictures_are_no_fields() -> None:
    """A scanner calls its files scan.2019.01.tif: two pictures, not two fields of the record `scan`."""
    assert assigned("scan.2019.01.tif", "scan.2019.02.tif") == {
        "scan.2019.01": {"tif": "scan.2019.01.tif"},
        "scan.2019.02": {"tif": "scan.2019.02.tif"},
    }


def test_twins_keep_their_extension_in_the_key() -> None:
    assert set(assigned("a.png", "a.jpg", "b.png")) == {"a.png", "a.jpg", "b"}


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), unique=True, max_size=300), st.integers(1, 20))
def test_groups_cover_every_record_once_in_order(keys: list[str], size: int) -> None:
    members = [Member(key, "png", f"{key}.png", InputFile(key, 1, "")) for key in sorted(keys)]
    units = group_members(members, size)
    assert [member for unit in units for member in unit.members] == members
    assert all(len(unit.members) <= 4 * size for unit in units)


def test_a_new_file_changes_one_group_only() -> None:
    members = [Member(f"{n:05d}", "png", f"{n}.png", InputFile(str(n), 1, "")) for n in range(2000)]
    before = {unit.members for unit in group_members(members)}
    extra = Member("01000b", "png", "new", InputFile("new", 1, ""))
    after = {unit.members for unit in group_members(sorted([*members, extra], key=lambda member: member.key))}
    assert len(before) > 50
    assert len(after - before) <= 2


def test_a_record_is_never_split_between_groups() -> None:
    members = [
        Member(f"{n:04d}", f"{role}.png", f"{n}.{role}.png", InputFile(f"{n}{role}", 1, ""))
        for n in range(500)
        for role in ("clean", "degraded")
    ]
    for unit in group_members(members):
        assert len(unit.members) % 2 == 0


def test_units_are_small_and_picklable(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n:03d}.png" for n in range(40)))
    plan = plan_units(str(tmp_path))
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert isinstance(plan, Plan)
