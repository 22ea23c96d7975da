"""Data sets: stored pairs in every format, fresh pairs, batches on a device; and training from each of them."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.checkpoint import FILE_NAME, load_progress
from models.datasets import FreshBatches, FreshPairs, LoadedBatches, PairShards, holds_pairs, read_ahead
from models.degradation import GaussianNoise, InOrder, Maybe, RoundTo8Bit, Shuffle, Uniform, replay_each
from models.degradation.protocol import Operator
from models.recipes import Pair, Patches, Recipe, load_recipe, shipped_recipes
from models.training import TrainingOptions, train
from models.training_data import PictureOnDisk, TrainingPicture, digest, load_pictures
from models.training_recipe import LearningRate, NetworkChoice, TrainingRecipe, Validation
from models.validation import stored_validation_pairs
from transforms.errors import ConfigurationError
from transforms.formats import tar_index
from transforms.formats.arrow import ArrowWriter
from transforms.formats.indexed import index_records
from transforms.formats.open_files import OpenFiles
from transforms.formats.parquet import ParquetWriter
from transforms.formats.tar import TarWriter, read_tar
from transforms.pictures import EncodeOptions, Picture, encode
from transforms.randomness import generator
from transforms.raw_arrays import npy_bytes

FORMATS = ("tar", "tar-npy", "folder", "parquet", "arrow")


def picture(number: int, height: int = 40, width: int = 48, channels: int = 3) -> np.ndarray:
    return generator(5, "test picture", number).integers(0, 256, (height, width, channels), np.uint8)


def png(samples: np.ndarray) -> bytes:
    return encode(Picture(samples, None, "png"), "png", EncodeOptions())[0]


def fields_of(number: int, *, raw: bool, factor: int = 1, channels: tuple[int, int] = (3, 3)) -> dict[str, bytes]:
    """A pair whose degraded picture is the clean one's complement, every `factor`-th pixel of it."""
    clean = picture(number, channels=channels[0])
    degraded = 255 - clean[::factor, ::factor, : channels[1]]
    details = json.dumps(
        {"key": f"k{number:03d}", "parameters": {"degradation": [{"negative": {"number": number}}]}}
    ).encode()
    if raw:
        return {"clean.npy": npy_bytes(clean), "degraded.npy": npy_bytes(degraded), "json": details}
    return {"clean.png": png(clean), "degraded.png": png(degraded), "json": details}


def write_pairs(folder: Path, form: str, count: int = 12, **how: object) -> Path:
    """Two shards (or one folder) of pairs k000 ..."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = form in ("tar-npy", "arrow")
    records = [(f"k{number:03d}", fields_of(number, raw=raw, **how)) for number in range(count)]  # type: ignore[arg-type]
    if form == "folder":
        for key, fields in records:
            for name, data in fields.items():
                (folder / f"{key}.{name}").write_bytes(data)
        return folder
    writers = {"tar": TarWriter, "tar-npy": TarWriter}
    for shard, part in enumerate((records[: count // 3], records[count // 3 :])):
        path = folder / f"{shard:05d}.{form.removesuffix('-npy')}"
        if form in writers:
            writer = writers[form](path)
        else:
            writer = {"parquet": ParquetWriter, "arrow": ArrowWriter}[form](path, {})
        for key, fields in part:
            if form in writers:
                for name, data in fields.items():
                    writer.write(f"{key}.{name}", data)
            else:
                writer.write_record(key, list(fields.items()))
        writer.close()
    return folder


@pytest.fixture(params=FORMATS)
def pairs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_pairs(tmp_path / request.param, request.param)


# Stored pairs


def test_every_format_gives_the_pairs_that_were_stored(pairs: Path) -> None:
    stored = PairShards([str(pairs)], with_parameters=True)
    assert len(stored) == 12
    for number, item in enumerate(stored):
        assert item["key"] == f"k{number:03d}"
        expected = torch.from_numpy(picture(number)).permute(2, 0, 1) / 255
        assert item["clean"].dtype == torch.float32
        assert torch.allclose(item["clean"], expected, atol=1e-7)
        assert torch.allclose(item["degraded"], 1 - expected, atol=1e-6)
        assert item["parameters"] == {"degradation": [{"negative": {"number": number}}]}
    with pytest.raises(IndexError):
        stored[12]
    assert set(PairShards([str(pairs)])[3]) == {"clean", "degraded", "key"}


def test_windows_are_cut_at_the_same_place_and_again_at_the_next_asking(pairs: Path) -> None:
    stored = PairShards([str(pairs)], patch_size=16, seed=3)
    places = set()
    for number in (0, 5, 12, 24, 5 + 120):
        item = stored[number]
        assert item["clean"].shape == (3, 16, 16)
        assert torch.allclose(item["clean"] + item["degraded"], torch.ones(()), atol=1e-6)
        again = PairShards([str(pairs)], patch_size=16, seed=3)[number]
        assert torch.equal(item["clean"], again["clean"])
        places.add(item["clean"][0, 0, 0].item())
    assert not torch.equal(stored[5]["clean"], PairShards([str(pairs)], patch_size=16, seed=4)[5]["clean"])
    assert len(places) > 2


def test_items_may_be_written_to(pairs: Path) -> None:
    stored = PairShards([str(pairs)])
    before = stored[0]["clean"].clone()
    item = stored[0]
    item["clean"] += 1
    item["degraded"] += 1
    assert torch.equal(stored[0]["clean"], before)


def test_each_epoch_holds_every_pair_once_in_another_order(pairs: Path) -> None:
    stored = PairShards([str(pairs)], shuffle=True, seed=1)
    orders = [[stored[epoch * 12 + slot]["key"] for slot in range(12)] for epoch in range(3)]
    assert all(len(set(order)) == 12 for order in orders)
    assert orders[0] != orders[1] != orders[2] != sorted(orders[2])


def keys_of(items: object) -> list[str]:
    return [key for batch in items for key in batch["key"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("form", "context"), [*((form, "fork") for form in FORMATS), ("arrow", "spawn")])
def test_loading_processes_give_what_one_process_gives(tmp_path: Path, form: str, context: str) -> None:
    stored = PairShards([str(write_pairs(tmp_path, form))], patch_size=8, shuffle=True, seed=2)
    stored[0]  # a file is open by now
    alone = list(DataLoader(stored, batch_size=4, sampler=range(3, 23)))
    helped = list(
        DataLoader(stored, batch_size=4, sampler=range(3, 23), num_workers=2, multiprocessing_context=context)
    )
    assert keys_of(alone) == keys_of(helped)
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["degraded"], other["degraded"])
        assert torch.equal(one["clean"], other["clean"])


def test_nothing_open_is_pickled(pairs: Path) -> None:
    stored = PairShards([str(pairs)], patch_size=8)
    fresh = len(pickle.dumps(stored))
    [stored[number] for number in range(12)]
    assert len(pickle.dumps(stored)) == fresh
    assert torch.equal(pickle.loads(pickle.dumps(stored))[4]["clean"], stored[4]["clean"])


def test_memory_holds_places_and_not_pictures(tmp_path: Path) -> None:
    few, many = (
        len(pickle.dumps(PairShards([str(write_pairs(tmp_path / f"{count}", "tar", count))]))) for count in (12, 132)
    )
    assert (many - few) / 120 < 60  # bytes for each pair; one of the two pictures alone takes 6000


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 4)
    files = OpenFiles(limit=2)
    before = len(os.listdir("/proc/self/fd"))
    for number in (0, 1, 2, 3, 4, 5, 0, 1):
        assert files.read(str(tmp_path / f"{number}"), 1, 2) == bytes([number]) * 2
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("form", ["tar", "tar-npy", "arrow", "parquet"])
@pytest.mark.parametrize("factor", [2, 4])
def test_windows_of_a_smaller_degraded_picture_cover_the_same_place(tmp_path: Path, form: str, factor: int) -> None:
    stored = PairShards([str(write_pairs(tmp_path / "sr", form, factor=factor))], patch_size=16, seed=1)
    for number in range(30):
        item = stored[number]
        assert item["clean"].shape == (3, 16, 16)
        assert item["degraded"].shape == (3, 16 // factor, 16 // factor)
        assert torch.allclose(1 - item["degraded"], item["clean"][:, ::factor, ::factor], atol=1e-6)
    with pytest.raises(ConfigurationError, match=f"patch_size 17 is no multiple of {factor}"):
        PairShards([str(tmp_path / "sr")], patch_size=17)[0]


def test_sizes_without_a_factor_are_refused_for_windows_only(tmp_path: Path) -> None:
    folder = tmp_path / "valid"
    folder.mkdir()
    (folder / "a.clean.png").write_bytes(png(picture(1)))
    (folder / "a.degraded.png").write_bytes(png(picture(1)[3:-3, 3:-3]))
    assert PairShards([str(folder)])[0]["degraded"].shape == (3, 34, 42)
    with pytest.raises(ConfigurationError, match="no whole fraction of the clean one's 48x40"):
        PairShards([str(folder)], patch_size=8)[0]


def test_colourisation_pairs_keep_their_channels(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "grey", "tar", channels=(3, 1))
    item = PairShards([str(folder)], patch_size=8)[0]
    assert (item["clean"].shape[0], item["degraded"].shape[0]) == (3, 1)
    item = PairShards([str(folder)], patch_size=8, channels=1)[0]
    assert (item["clean"].shape[0], item["degraded"].shape[0]) == (1, 1)
    item = PairShards([str(folder)], patch_size=8, channels=(1, 3))[0]
    assert (item["clean"].shape[0], item["degraded"].shape[0]) == (1, 3)


def test_another_pair_takes_the_place_of_one_that_is_too_small(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for key, size in (("small", 8), ("large", 32)):
        (folder / f"{key}.clean.png").write_bytes(png(picture(1, size, size)))
        (folder / f"{key}.degraded.png").write_bytes(png(picture(2, size, size)))
    stored = PairShards([str(folder)], patch_size=16, seed=1)
    assert {stored[number]["key"] for number in range(20)} == {"large"}
    with pytest.raises(ConfigurationError, match="none of 100 pairs is at least 64 pixels"):
        PairShards([str(folder)], patch_size=64)[0]


def test_no_patch_of_a_picture_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "cut.tar") as shard:
        for number in range(40):
            for patch in range(5):
                for name, data in fields_of(1, raw=True).items():
                    shard.write(f"photo{number}-p{patch:05d}.{name}", data)
    training, held_out = PairShards([str(tmp_path / "cut.tar")]).split_held_out(0.2)
    sides = [{key.partition("-p")[0] for key in side.keys()} for side in (training, held_out)]  # noqa: SIM118 - no mapping
    assert len(training) + len(held_out) == 200
    assert not sides[0] & sides[1]
    assert 0 < len(sides[1]) < 20
    first = held_out.first_by_hash(3)
    assert len(first) == 3
    assert first[0]["key"] in set(held_out.keys())


def test_stored_pairs_are_judged_whole(pairs: Path) -> None:
    held_out = PairShards([str(pairs)], patch_size=8, shuffle=True).subset([3, 7])
    judged = stored_validation_pairs(held_out)
    for pair, number in zip(judged, (3, 7), strict=True):
        assert np.array_equal(pair.clean, picture(number))
        assert np.allclose(pair.degraded, 1 - np.moveaxis(picture(number), 2, 0) / 255, atol=1e-6)


def test_the_digest_of_pairs_sees_names_content_and_choice(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "a", "folder")
    here = PairShards([str(folder)])
    moved = PairShards([str(write_pairs(tmp_path / "b", "folder"))])
    assert here.digest() == moved.digest()
    assert here.digest() != here.subset(range(11)).digest()
    changed = bytearray((folder / "k003.degraded.png").read_bytes())
    changed[40] ^= 1
    (folder / "k003.degraded.png").write_bytes(changed)
    assert PairShards([str(folder)]).digest() != moved.digest()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "a", "folder")
    (folder / "k003.degraded.png").write_bytes((folder / "k003.degraded.png").read_bytes()[:-50])
    stored = PairShards([str(folder)])
    assert stored[2]["key"] == "k002"
    with pytest.raises(ConfigurationError, match="training record 'k003' of the loose files can't be used: truncated"):
        stored[3]


def test_what_can_not_be_read_at_random_is_refused_with_the_remedy(tmp_path: Path) -> None:
    shard = next(iter(sorted(write_pairs(tmp_path / "t", "tar").glob("*.tar"))))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:9000])
    with pytest.raises(
        ConfigurationError, match=r"is damaged after record 'k000': its last member is cut off|without its end mark"
    ):
        PairShards([str(shard)])
    shard.write_bytes(whole[: whole.index(b"k002.clean.png")] + b"x" * 2048)
    with pytest.raises(ConfigurationError, match="no tar header stands at byte"):
        PairShards([str(shard)])
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "t" / "00001.tar", "k.clean.png")
    with pytest.raises(ConfigurationError, match="compressed and can't be read at random; unpack it"):
        PairShards([str(tmp_path / "c.tar.gz")])
    (tmp_path / "x.arrow").write_bytes(b"no arrow")
    with pytest.raises(ConfigurationError, match="is no Arrow file"):
        PairShards([str(tmp_path / "x.arrow")])
    (tmp_path / "alone.png").write_bytes(png(picture(1)))
    with pytest.raises(ConfigurationError, match="holds no pairs"):
        PairShards([str(tmp_path / "alone.png")])


def test_a_shard_that_changes_under_its_index_is_noticed(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "t", "tar-npy")
    stored = PairShards([str(folder)])
    (folder / "00000.tar").unlink()
    with TarWriter(folder / "00000.tar") as shard:
        shard.write("other.clean.npy", bytes(40_000))
    elsewhere = pickle.loads(pickle.dumps(stored))  # here the old file is still open
    for number in (0, 1):
        with pytest.raises(ConfigurationError, match="has changed since it was indexed"):
            elsewhere[number]


def test_pairs_are_told_from_clean_pictures(pairs: Path, tmp_path: Path) -> None:
    assert holds_pairs([str(pairs)])
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "a.png").write_bytes(png(picture(1)))
    assert not holds_pairs([str(tmp_path / "clean")])
    (pairs / "report").mkdir()
    (pairs / "report" / "metrics.parquet").write_bytes(b"figures, no pairs")
    assert len(PairShards([str(pairs)])) == 12


def test_pairs_in_a_bucket_are_read_like_others() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as shard:
        for number in range(3):
            for name, data in fields_of(number, raw=True).items():
                info = tarfile.TarInfo(f"k{number}.{name}")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    fs.pipe_file("/bucket/pairs.tar", stream.getvalue())
    stored = PairShards(["memory://bucket/pairs.tar"])
    assert [item["key"] for item in stored] == ["k0", "k1", "k2"]
    assert torch.allclose(stored[2]["clean"] + stored[2]["degraded"], torch.ones(()), atol=1e-6)


# Indexes


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind_are_walked_as_tarfile_does(tmp_path: Path, style: int) -> None:
    long = "folder-with-a-long-name/" * (3 if style == tarfile.USTAR_FORMAT else 12)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=style) as archive:
        directory = tarfile.TarInfo("folder")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for number, name in enumerate((f"{long}a.clean.png", f"{long}a.json", "b.clean.png", f"{long}ü.png")):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive if info.isfile()]
    walked = list(tar_index.walk_tar(lambda start, size: content[start : start + size]))
    assert [(each.name, each.offset, each.size) for each in walked] == expected
    index = index_records([str(path)])
    assert [index.key(number) for number in range(len(index))] == [f"{long}a", "b", f"{long}ü"]
    for number, record in enumerate(read_tar(str(path))):
        part, inside = index.at(number)
        assert part.read(inside).fields == record.fields


def test_a_column_of_many_pages_and_groups_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.formats.columns.GROUP_BYTES", 3 << 20)
    writer = ParquetWriter(tmp_path / "x.parquet", {})
    sizes = generator(1, "sizes").integers(0, 90_000, 200).tolist()
    for number, size in enumerate(sizes):
        fields = {"clean.png": bytes([number % 251]) * size, "degraded.png": b"d" * number, "json": b"{}"}
        writer.write_record(f"k{number}", list(fields.items()))
    writer.close()
    index = index_records([str(tmp_path / "x.parquet")])
    for number in (0, 1, 57, 128, 199):
        part, inside = index.at(number)
        record = part.read(inside)
        assert record.key == f"k{number}"
        assert record.fields["clean.png"] == bytes([number % 251]) * sizes[number]
        assert record.fields["degraded.png"] == b"d" * number


# Fresh pairs

CLEAN = [TrainingPicture(f"p{number}", picture(number, 150 + 10 * number, 170)) for number in range(3)]
GREY = [TrainingPicture(each.key, each.clean[..., :1]) for each in CLEAN]


@pytest.fixture
def folder_of_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "clean"
    folder.mkdir()
    for each in CLEAN:
        (folder / f"{each.key}.png").write_bytes(png(each.clean))
    return folder


@pytest.mark.parametrize("name", ["dncnn-25", "noise-zoo", "gaussian-25-mixed", "practice-sheet"])
def test_a_fresh_pair_is_the_one_that_degrade_makes(name: str) -> None:
    recipe = load_recipe(name)
    source = FreshPairs(CLEAN, recipe, 48, seed=9, with_parameters=True)
    for number in (0, 3, 1000):
        item = source[number]
        samples = next(each.clean for each in CLEAN if each.key == item["key"])
        pair = recipe.pair(samples, key=item["key"], patch=item["parameters"]["patch"], seed=9, size=48)
        assert isinstance(pair, Pair)
        assert np.array_equal(np.moveaxis(item["clean"].numpy(), 0, 2), pair.clean)
        assert np.array_equal(np.moveaxis(item["degraded"].numpy(), 0, 2), pair.degraded)
        assert item["parameters"]["degradation"] == pair.parameters["degradation"]


def test_loading_processes_make_the_same_fresh_pairs() -> None:
    source = FreshPairs(CLEAN, load_recipe("noise-zoo"), 16, seed=1)
    alone = list(DataLoader(source, batch_size=4, sampler=range(8, 24)))
    helped = list(DataLoader(source, batch_size=4, sampler=range(8, 24), num_workers=2))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["degraded"], other["degraded"])


def test_whole_pictures_are_drawn_where_a_recipe_cuts_none() -> None:
    source = FreshPairs(CLEAN, load_recipe("gaussian-25"))
    shapes = {source[number]["clean"].shape for number in range(20)}
    assert shapes == {(3, *each.size) for each in CLEAN}
    before = CLEAN[0].clean.copy()
    untouched = FreshPairs(CLEAN[:1], Recipe("no", Maybe(RoundTo8Bit(), 0)))[0]
    untouched["degraded"] += 1
    assert torch.allclose(untouched["clean"] + 1, untouched["degraded"])
    assert np.array_equal(CLEAN[0].clean, before)


def test_pictures_beyond_the_memory_limit_are_read_when_they_are_drawn(folder_of_pictures: Path) -> None:
    held = load_pictures([str(folder_of_pictures)], 3, (1.0, 0.5))
    on_disk = load_pictures([str(folder_of_pictures)], 3, (1.0, 0.5), limit_bytes=200_000)
    assert all(isinstance(each, PictureOnDisk) for each in on_disk)
    assert [(each.key, each.size) for each in held] == [(each.key, each.size) for each in on_disk]
    recipe = load_recipe("noise-zoo")
    here, there = FreshPairs(held, recipe, 32, seed=1), FreshPairs(on_disk, recipe, 32, seed=1)
    for number in range(12):
        one, other = here.draw(number), there.draw(number)
        assert np.array_equal(one.clean, other.clean)
        assert np.array_equal(one.degraded, other.degraded)
    assert on_disk[0].source._held <= 100_000
    assert digest(on_disk) == digest(load_pictures([str(folder_of_pictures)], 3, (1.0, 0.5), limit_bytes=200_000))
    assert len(pickle.dumps(there)) < 5000  # no samples travel to a loading process


def test_a_recipe_that_rejects_everything_is_told() -> None:
    flat = [TrainingPicture("flat", np.full((64, 64, 1), 99, np.uint8))]
    recipe = Recipe("choosy", RoundTo8Bit(), patches=Patches(16, minimum_std=0.1))
    with pytest.raises(ConfigurationError, match="'choosy' rejected 100 patches in a row"):
        FreshPairs(flat, recipe)[0]


# Batches on a device

MIXED = Recipe(
    "mixed",
    InOrder(
        (
            Maybe(GaussianNoise(sigma=Uniform(0, 0.2)), 0.5),
            Shuffle((RoundTo8Bit(), GaussianNoise(sigma=0.05), Maybe(RoundTo8Bit(), 0.3))),
        )
    ),
    patches=Patches(32, flips=True, rotations=True),
)
BATCHED = [
    name for name in shipped_recipes() if load_recipe(name).patches is not None and name not in ("dncnn-15", "dncnn-50")
]


def batches(recipe: Recipe, device: str = "cpu", size: int = 32, **settings: object) -> FreshBatches:
    return FreshBatches(CLEAN, recipe, 6, size, 7, device, **settings)  # type: ignore[arg-type]


def assert_batch_is_that_of_fresh_pairs(recipe: Recipe, made: FreshBatches, size: int, tolerance: float) -> None:
    degraded, clean = made[2]
    expected_degraded, expected_clean = LoadedBatches(FreshPairs(CLEAN, recipe, size, 7), 6)[2]
    assert torch.allclose(clean, expected_clean, atol=1e-7)
    assert degraded.shape == expected_degraded.shape
    # FFTs of another library differ in the last bit; where a recipe rounds, a half may then fall to the other side.
    assert ((degraded - expected_degraded).abs() > tolerance).float().mean() < 1e-3


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("name", BATCHED)
def test_batches_on_the_cpu_are_those_of_fresh_pairs(name: str, resident: bool) -> None:
    recipe = load_recipe(name)
    size = 96 if recipe.crop_to_multiple > 1 else 32
    assert_batch_is_that_of_fresh_pairs(recipe, batches(recipe, size=size, resident=resident), size, 1e-5)


@pytest.mark.parametrize("resident", [False, True])
def test_turned_and_mirrored_patches_of_mixed_chains_agree(resident: bool) -> None:
    assert_batch_is_that_of_fresh_pairs(MIXED, batches(MIXED, resident=resident), 32, 1e-6)
    grey = replace(MIXED, channels="gray")
    assert_batch_is_that_of_fresh_pairs(grey, batches(grey, resident=resident), 32, 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", BATCHED)
def test_batches_on_the_gpu_are_those_of_fresh_pairs(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    recipe = load_recipe(name)
    size = 96 if recipe.crop_to_multiple > 1 else 32
    made = batches(recipe, "cuda", size=size)
    degraded, clean = made[2]
    assert degraded.device.type == clean.device.type == "cuda"
    # Rounding to 8 bit may fall to the other side of a half: one level, in few samples.
    expected = LoadedBatches(FreshPairs(CLEAN, recipe, size, 7), 6)[2][0]
    difference = (degraded.cpu() - expected).abs()
    assert difference.median() < 1e-5
    assert difference.mean() < 1e-3


@pytest.mark.gpu
def test_a_gpu_keeps_the_clean_pictures_and_trains(tmp_path: Path, folder_of_pictures: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert batches(MIXED, "cuda")._resident is not None
    train(RECIPE, options(tmp_path / "run", folder_of_pictures, device="cuda"))
    assert load_progress(tmp_path / "run").step == RECIPE.steps


class Halving(Operator):
    """Every second pixel: a size that depends on the drawn number."""

    name = "halving"

    @staticmethod
    def apply(planes: object, parameters: object) -> object:
        return planes[..., ::2, ::2]  # type: ignore[index]

    @staticmethod
    def output_shape(shape: tuple[int, int, int], parameters: object) -> tuple[int, int, int]:
        return -(-shape[0] // 2), -(-shape[1] // 2), shape[2]


class Doubling(Halving):
    name = "doubling"

    @staticmethod
    def apply(planes: object, parameters: object) -> object:
        return planes.repeat_interleave(2, -1).repeat_interleave(2, -2)  # type: ignore[attr-defined]

    @staticmethod
    def output_shape(shape: tuple[int, int, int], parameters: object) -> tuple[int, int, int]:
        return 2 * shape[0], 2 * shape[1], shape[2]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the batches that each of two operators gets."""
    counted: Counter[str] = Counter()

    def classes(name: str) -> type[Operator]:
        known = {"halving": Halving, "doubling": Doubling}[name]

        class Counted(known):  # type: ignore[misc, valid-type]
            @classmethod
            def apply_each(cls, batch: object, parameters: object) -> object:
                counted[name] += 1
                return super().apply_each(batch, parameters)

        return Counted

    monkeypatch.setattr("models.degradation.chains.operator_class", classes)
    return counted


def test_sizes_may_differ_on_the_way_but_not_at_the_end(calls: Counter[str]) -> None:
    batch = torch.rand(4, 1, 8, 8)
    down, up = [{"halving": {}}, {"doubling": {}}], [{"doubling": {}}, {"halving": {}}]
    made = replay_each(batch, [down, up, up, []])
    assert made.shape == (4, 1, 8, 8)
    assert torch.equal(made[1:], batch[1:])
    assert calls == {"halving": 2, "doubling": 2}
    with pytest.raises(ConfigurationError, match=r"several shapes \(1 x 4 x 4, 1 x 8 x 8\) and can't be stacked"):
        replay_each(batch, [down, [{"halving": {}}], up, up])
    assert replay_each(batch, [[{"halving": {}}]] * 4).shape == (4, 1, 4, 4)


def test_clean_pictures_of_several_sizes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match="clean pictures have several shapes in one batch"):
        FreshBatches(CLEAN, load_recipe("gaussian-25"), 6)[0]
    with pytest.raises(ConfigurationError, match="degraded pictures have several shapes"):
        LoadedBatches(FreshPairs(CLEAN, load_recipe("gaussian-25")), 6)[0]
    with pytest.raises(ConfigurationError, match=r"\[1, 3\] channels"):
        FreshBatches([CLEAN[0], GREY[1]], MIXED, 2, 16, resident=True)
    assert FreshBatches(CLEAN, load_recipe("gaussian-25"), 1)[0][0].shape[0] == 1


def test_a_batch_that_nothing_happened_to_is_not_its_own_reference() -> None:
    degraded, clean = FreshBatches(CLEAN, Recipe("no", Maybe(RoundTo8Bit(), 0)), 2, 16)[0]
    degraded += 1
    assert torch.allclose(clean + 1, degraded)


def test_batches_read_ahead_come_in_order_and_raise_in_their_turn() -> None:
    class Faulty:
        def __getitem__(self, number: int) -> int:
            if number == 3:
                raise ConfigurationError("the third")
            return number

    made = read_ahead(Faulty(), range(9))
    assert [next(made), next(made), next(made)] == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="the third"):
        next(made)
    assert list(read_ahead(range(10, 20), range(4))) == [10, 11, 12, 13]


# Training

RECIPE = TrainingRecipe(
    name="tiny",
    purpose="denoise",
    network=NetworkChoice("model3", 3, {"layers": 4}),
    degradation="dncnn-25",
    steps=8,
    batch_size=2,
    patch_size=12,
    learning_rate=LearningRate(1e-3),
    validation=Validation("psnr[rgb,u8]", every=4, limit=2),
    seed=4,
)


def options(output: Path, data: Path, **more: object) -> TrainingOptions:
    return TrainingOptions(str(output), (str(data),), **{"device": "cpu", "loaders": 0, "threads": 1, **more})  # type: ignore[arg-type]


def weights(folder: Path) -> bytes:
    """The checkpoint without what it says of elapsed time."""
    from safetensors.torch import load_file, save

    return save(load_file(folder / FILE_NAME))


def colour_recipe(tmp_path: Path) -> TrainingRecipe:
    path = tmp_path / "noise.yaml"
    path.write_text(
        "kind: degradation\ndescription: noise\nsource: ours\npatches: {size: 12, flips: true}\n"
        "degradation:\n  sequence:\n    - gaussian_noise: {sigma: {uniform: [0, 0.2]}}\n"
        "    - maybe: {probability: 0.5, round_to_8bit: {}}\n"
    )
    return replace(RECIPE, degradation=str(path))


@pytest.mark.parametrize("form", FORMATS)
def test_training_on_stored_pairs_resumes_with_the_same_bits(tmp_path: Path, form: str) -> None:
    data = write_pairs(tmp_path / "data", form)
    train(RECIPE, options(tmp_path / "whole", data, validation=(str(data),)))
    train(RECIPE, options(tmp_path / "parts", data, validation=(str(data),), stop_after=3, loaders=2))
    train(RECIPE, options(tmp_path / "parts", data, validation=(str(data),), resume=True, loaders=1))
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_every_format_trains_the_same_network(tmp_path: Path) -> None:
    runs = [tmp_path / f"run-{form}" for form in FORMATS]
    for form, run in zip(FORMATS, runs, strict=True):
        train(RECIPE, options(run, write_pairs(tmp_path / form, form), validation=(str(tmp_path / form),)))
    assert len({weights(run) for run in runs}) == 1


@pytest.mark.parametrize("synthesis", ["loaders", "device"])
def test_training_on_fresh_pairs_resumes_with_the_same_bits(
    tmp_path: Path, folder_of_pictures: Path, synthesis: str
) -> None:
    recipe = colour_recipe(tmp_path)
    train(recipe, options(tmp_path / "whole", folder_of_pictures, synthesis=synthesis))
    train(recipe, options(tmp_path / "parts", folder_of_pictures, synthesis=synthesis, stop_after=3))
    train(recipe, options(tmp_path / "parts", folder_of_pictures, synthesis=synthesis, resume=True))
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_synthesis_on_the_device_trains_almost_the_same_network(tmp_path: Path, folder_of_pictures: Path) -> None:
    from safetensors.torch import load_file

    recipe = colour_recipe(tmp_path)
    for name in ("loaders", "device"):
        train(recipe, options(tmp_path / name, folder_of_pictures, synthesis=name))
    one, other = (load_file(tmp_path / name / FILE_NAME) for name in ("loaders", "device"))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one if name.startswith("network."))


def test_a_grey_recipe_for_a_colour_network_is_told(tmp_path: Path, folder_of_pictures: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"makes patches of 1 channel, the network takes 3"):
        train(RECIPE, options(tmp_path / "run", folder_of_pictures))


def test_a_network_that_keeps_the_size_is_not_trained_on_smaller_pictures(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", "tar", factor=2)
    with pytest.raises(
        ConfigurationError, match="the network makes 2 x 3 x 6 x 6 of 2 x 3 x 6 x 6, but the clean pictures"
    ):
        train(RECIPE, options(tmp_path / "run", data))


def test_all_pairs_held_out_leave_nothing_to_learn_from(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", "tar")
    everything = replace(RECIPE, validation=replace(RECIPE.validation, held_out=0.9999999))
    with pytest.raises(ConfigurationError, match="all 12 pairs are held out"):
        train(everything, options(tmp_path / "run", data))
