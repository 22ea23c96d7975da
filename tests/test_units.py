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
        ".hidden.png",
    )
    plan = plan_units(str(tmp_path))
    assert [member.name for unit in plan.units for member in unit.members] == ["a.png"]
    assert plan.ignored == (".hidden.png",)


def test_a_camera_may_begin_its_file_names_with_an_underscore(tmp_path: Path) -> None:
    touch(tmp_path, "_DSC0001.jpg", "_album/_MG_2.jpg")
    names = {member.name for unit in plan_units(str(tmp_path)).units for member in unit.members}
    assert names == {"_DSC0001.jpg", "_album/_MG_2.jpg"}


def test_a_link_is_the_file_that_it_points_to(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (member,) = (member for unit in plan_units(str(tmp_path / "in")).units for member in unit.members)
    assert (member.name, member.file.size) == ("link.png", 1)


def test_two_files_for_one_output_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.png", "c/1.png", "d/2.png")
    with pytest.raises(ConfigurationError, match=r"would both write '1.png'"):
        plan_units(f"{tmp_path}/b,{tmp_path}/c")
    twice = plan_units(f"{tmp_path}/b,{tmp_path}/d,{tmp_path}/b/1.png")  # the same file named twice is one file
    assert [member.name for unit in twice.units for member in unit.members] == ["1.png", "2.png"]


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
        "scan_2019_01": {"tif": "scan.2019.01.tif"},
        "scan_2019_02": {"tif": "scan.2019.02.tif"},
    }


def test_twins_keep_their_extension_in_the_key() -> None:
    assert set(assigned("a.png", "a.jpg", "b.png")) == {"a_png", "a_jpg", "b"}


@given(st.lists(st.text("ab._/", min_size=1, max_size=6).map(lambda stem: f"x{stem}x.png"), unique=True, max_size=30))
def test_keys_of_loose_pictures_are_unique_and_survive_a_tar(names: list[str]) -> None:
    members, _ = assign_members((name, InputFile(name, 1, "")) for name in names)
    keys = [member.key for member in members if "/" not in member.name or member.field == "png"]
    assert len(set(keys)) == len(keys)
    assert all("." not in key.rpartition("/")[2] for key in keys)
    backwards, _ = assign_members((name, InputFile(name, 1, "")) for name in reversed(names))
    assert backwards == members


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), unique=True, max_size=300), st.integers(1, 20))
def test_groups_cover_every_record_once_in_order(keys: list[str], size: int) -> None:
    members = [Member(key, "png", f"{key}.png", InputFile(key, 1, "")) for key in sorted(keys)]
    units = group_members(members, size)
    assert [member for unit in units for member in unit.members] == members
    assert all(len(unit.members) <= 4 * size for unit in units)


def test_a_new_file_changes_one_group_only() -> None:
    members = [Member(f"{n:05d}", "png", f"{n}.png", InputFile(str(n), 1, "")) for n in range(2000)]
    before = set(group_members(members))
    assert len(before) > 50
    for number in range(0, 2000, 50):
        extra = Member(f"{number:05d}b", "png", "new", InputFile("new", 1, ""))
        after = set(group_members(sorted([*members, extra], key=lambda member: member.key)))
        assert len(after - before) <= 2  # names included: a unit under another name would be done again


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
