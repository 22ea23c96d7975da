"""How pairs are stored: every codec in every kind of shard, read back by every reader."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from pair_kit import (
    INLINE,
    SHARDS,
    WITH_ARRAYS,
    Array,
    crops,
    described,
    files_of,
    job_of,
    png,
    records_in,
    run,
    write_tar,
)
from PIL import Image

from pipelines.main import main
from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.formats.arrow import open_arrow, read_arrow
from transforms.formats.parquet import read_parquet
from transforms.formats.shards import read_shard
from transforms.formats.tar import read_tar
from transforms.pair_format import PairFormat
from transforms.pictures import decode
from transforms.raw_arrays import npy_array, npy_bytes
from transforms.record import clean_field, degraded_field
from transforms.units import plan_units
from transforms.value_range import samples_digest, to_float

# ---------------------------------------------------------------- codecs


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize(
    ("clean", "degraded", "fields"),
    [
        ("png", "png", {"clean.png", "degraded.png"}),
        ("webp", "webp", {"clean.webp", "degraded.webp"}),
        ("npy", "npy", {"clean.npy", "degraded.npy"}),
        ("png", "npy-rounded", {"clean.png", "degraded.npy"}),
        ("jpeg", "jpeg", {"clean.jpg", "degraded.jpg"}),
    ],
)
def test_every_codec_is_read_back_as_it_was_digested(
    shard: Path, tmp_path: Path, kind: str, clean: str, degraded: str, fields: set[str]
) -> None:
    run(job_of(clean_format=clean, degraded_format=degraded, output_format=kind), shard, tmp_path / "out")
    records = records_in(tmp_path / "out")
    assert len(records) == 18
    for found in records.values():
        assert set(found) == fields | {"json"}
        details = described(found)
        for role, name in (("clean", clean_field(found)), ("degraded", degraded_field(found))):
            assert name is not None
            samples = decode(found[name], name).samples
            assert samples.shape == (24, 24, 3)
            expected = "float32" if (role, degraded) == ("degraded", "npy") else "uint8"
            assert samples.dtype.name == details["types"][role] == expected
            assert (samples_digest(samples) == details["digests"][role]) == (clean != "jpeg")


def test_raw_and_coded_pairs_are_the_same_pictures(shard: Path, tmp_path: Path) -> None:
    for codec in ("png", "webp", "npy-rounded", "npy"):
        run(job_of(clean_format="png", degraded_format=codec), shard, tmp_path / codec)
    digests = {
        c: {k: described(f)["digests"] for k, f in records_in(tmp_path / c).items()}
        for c in ("png", "webp", "npy-rounded")
    }
    assert digests["png"] == digests["webp"] == digests["npy-rounded"]
    assert digests["png"] != {k: described(f)["digests"] for k, f in records_in(tmp_path / "npy").items()}


def test_npy_is_neither_clipped_nor_rounded(shard: Path, tmp_path: Path) -> None:
    for codec in ("png", "npy"):
        run(job_of(recipe="dncnn-50", degraded_format=codec), shard, tmp_path / codec)
    rounded, computed = records_in(tmp_path / "png"), records_in(tmp_path / "npy")
    values = {key: npy_array(found["degraded.npy"]) for key, found in computed.items()}
    assert min(array.min() for array in values.values()) < 0
    for key, found in rounded.items():
        samples = decode(found["degraded.png"], "degraded.png").samples
        assert np.abs(np.clip(values[key], 0, 1) - to_float(samples)).max() <= 0.5 / 255 + 1e-6


def test_16_bit_stays_16_bit_where_the_format_holds_it(tmp_path: Path, photo: Array) -> None:
    import imagecodecs

    deep = (photo[:40, :40].astype(np.uint16) << 8) + 77
    source = write_tar(tmp_path / "in" / "s.tar", {"a.png": bytes(imagecodecs.png_encode(deep))})
    for codec, kind, kept in (("png", "tar", True), ("npy", "tar", True), ("webp", "tar", False), ("", "arrow", False)):
        output = tmp_path / f"{codec}-{kind}"
        run(job_of(clean_format=codec, output_format=kind), source, output)
        for found in records_in(output).values():
            name = clean_field(found) or ""
            samples = decode(found[name], name).samples
            assert samples.dtype == (np.uint16 if kept else np.uint8)
            assert samples_digest(samples) == described(found)["digests"]["clean"]
            assert any("16 bit reduced to 8" in note for note in described(found)["notes"]) is not kept


def test_grey_in_webp_comes_back_as_equal_channels(tmp_path: Path, photo: Array) -> None:
    source = write_tar(tmp_path / "in" / "s.tar", {"a.png": png(photo[:40, :40, 0])})
    run(job_of(clean_format="webp", degraded_format="webp"), source, tmp_path / "out")
    for found in records_in(tmp_path / "out").values():
        samples = decode(found["clean.webp"], "clean.webp").samples
        assert (samples == samples[..., :1]).all()
        assert samples_digest(samples[..., :1]) == described(found)["digests"]["clean"]
        assert "grey stored as RGB: WebP has none" in described(found)["notes"]


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<f4", ">f4"])
def test_arrays_of_the_three_types_are_pictures(dtype: str) -> None:
    values = (np.arange(24).reshape(2, 4, 3) / (1 if "u" in dtype else 24)).astype(dtype)
    buffer = io.BytesIO()
    np.save(buffer, values)
    samples = decode(buffer.getvalue(), "clean.npy").samples
    np.testing.assert_array_equal(samples, values)
    assert samples.dtype == np.dtype(dtype).newbyteorder("=")
    for other in (np.zeros((2, 2), np.int32), np.zeros((2, 2), np.float64)):
        buffer = io.BytesIO()
        np.save(buffer, other)
        with pytest.raises(RecordError, match="uint8, uint16 and float32"):
            decode(buffer.getvalue(), "clean.npy")


def test_our_npy_files_are_numpys(photo: Array) -> None:
    for values in (photo[:5, :7], photo[::2, ::3, :1], np.float32(photo[:3]) / 255, np.zeros((0, 3), np.float32)):
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(values))
        assert npy_bytes(values) == buffer.getvalue()
        np.testing.assert_array_equal(npy_array(npy_bytes(values)), values)
    with pytest.raises(ValueError, match="version"):
        npy_array(b"\x93NUMPY\x02\x00" + bytes(100))


def test_the_digest_tells_type_shape_and_samples_apart() -> None:
    base = np.arange(12, dtype=np.uint8)
    variants = [base, base.reshape(3, 4), base.reshape(4, 3), base.astype(np.uint16), base.view(np.uint16), base[::-1]]
    digests = [samples_digest(each) for each in variants]
    assert len(set(digests)) == len(variants)
    assert all(re.fullmatch("xxh3:[0-9a-f]{32}", digest) for digest in digests)
    assert samples_digest(base[::2]) == samples_digest(base[::2].copy())


def test_formats_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="clean_format 'gif' is unknown"):
        PairFormat(clean="gif")
    with pytest.raises(ConfigurationError, match="clean_format 'npy-rounded'"):
        PairFormat(clean="npy-rounded")


def test_metadata_of_the_source_stay_out_of_patches(tmp_path: Path, photo: Array) -> None:
    """A camera's EXIF, thumbnail included, once stood in every patch: more bytes than the pixels."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "x" * 20_000
    Image.fromarray(photo[:64, :64]).save(buffer, "PNG", exif=exif, dpi=(300, 300))
    source = write_tar(tmp_path / "in" / "s.tar", {"a.png": buffer.getvalue()})
    run(job_of(), source, tmp_path / "patches")
    run(job_of(whole=True, patch_size=0, patches_per_image=0), source, tmp_path / "whole")
    (patch, *_), (whole,) = records_in(tmp_path / "patches").values(), records_in(tmp_path / "whole").values()
    assert len(patch["clean.png"]) < 5_000
    assert "EXIF and XMP left out of patches" in described(patch)["notes"]
    assert decode(patch["clean.png"], "png").exif is None
    assert decode(patch["clean.png"], "png").dpi == (300.0, 300.0)
    assert len(decode(whole["clean.png"], "png").exif or b"") > 20_000


# ---------------------------------------------------------------- what a record says of itself


def test_a_record_names_its_source_without_a_path(shard: Path, tmp_path: Path, photo: Array) -> None:
    """Output bytes must not depend on where the input lies, nor on how loose files are grouped."""
    run(job_of(), shard, tmp_path / "one")
    moved = write_tar(
        tmp_path / "elsewhere" / "far" / "s.tar", {f"{k}.png": png(c) for k, c in crops(photo, 6).items()}
    )
    run(job_of(), moved, tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    details = described(records_in(tmp_path / "one")["03-p00001"])
    assert details["source"] == {"key": "03", "field": "png", "unit": "s"}
    assert str(tmp_path) not in json.dumps(details)
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "03.png").write_bytes(png(crops(photo, 6)["03"]))
    run(job_of(), tmp_path / "loose", tmp_path / "three")
    assert described(records_in(tmp_path / "three")["03-p00001"])["source"] == {
        "key": "03",
        "field": "png",
        "unit": None,
    }


# ---------------------------------------------------------------- columns


def test_parquet_holds_the_very_records_of_the_tar(shard: Path, tmp_path: Path) -> None:
    run(job_of(), shard, tmp_path / "tar")
    ledger = run(job_of(output_format="parquet"), shard, tmp_path / "parquet")
    tars = {record.key: record.fields for record in read_tar(str(tmp_path / "tar" / "s.tar"))}
    rows = list(read_parquet(str(tmp_path / "parquet" / "s.parquet")))
    assert {record.key: record.fields for record in rows} == tars
    assert [record.index for record in rows] == list(range(18))
    table = pq.read_table(tmp_path / "parquet" / "s.parquet")  # nothing of ours
    assert table.column_names == ["key", "clean", "degraded", "json", "arrays"]
    assert table["clean"][0].as_py().startswith(b"\x89PNG")
    run_of = json.loads(table.schema.metadata[b"conservator.run"])
    assert run_of["recipe"]["name"] == "gaussian-25"
    assert run_of["seed"] == 4
    assert json.loads(table.schema.metadata[b"conservator.fields"]) == {
        "clean": "clean.png",
        "degraded": "degraded.png",
    }
    assert ledger["outputs"][0]["records"] == 18


def test_row_groups_are_bounded_by_bytes(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.formats.columns.GROUP_BYTES", 12_000)
    run(job_of(output_format="parquet", clean_format="npy", degraded_format="npy-rounded"), shard, tmp_path / "p")
    run(job_of(output_format="arrow"), shard, tmp_path / "a")
    file = pq.ParquetFile(tmp_path / "p" / "s.parquet")
    assert file.num_row_groups == 6  # 24 * 24 * 3 * 2 bytes and the JSON: the third row closes a group
    assert open_arrow(tmp_path / "a" / "s.arrow").batches == 6
    assert [record.key for record in read_parquet(str(tmp_path / "p" / "s.parquet"))] == [
        record.key for record in read_arrow(str(tmp_path / "a" / "s.arrow"))
    ]


@pytest.mark.parametrize(("stored", "dtype"), [("", np.uint8), ("npy", np.float32)])
def test_arrow_is_mapped_without_a_copy(shard: Path, tmp_path: Path, stored: str, dtype: type) -> None:
    run(job_of(output_format="arrow", degraded_format=stored), shard, tmp_path / "out")
    run(job_of(degraded_format=stored), shard, tmp_path / "tar")
    path = tmp_path / "out" / "s.arrow"
    mapped = open_arrow(path)
    clean, degraded = mapped.pictures(0)
    assert clean.shape == degraded.shape == (18, 24, 24, 3)
    assert (clean.dtype, degraded.dtype) == (np.uint8, dtype)
    before = pa.total_allocated_bytes()
    again = mapped.pictures(0)
    assert pa.total_allocated_bytes() - before < 10_000  # the pictures take 30 kB or more
    for samples in (clean, degraded, *again):
        assert not samples.flags.owndata
        assert not samples.flags.writeable
        assert lies_in_a_map(samples, path)
    tars = {record.key: record.fields for record in read_tar(str(tmp_path / "tar" / "s.tar"))}
    for number, key in enumerate(mapped.keys(0)):
        np.testing.assert_array_equal(clean[number], decode(tars[key]["clean.png"], "png").samples)
        name = degraded_field(tars[key])
        np.testing.assert_array_equal(degraded[number], decode(tars[key][name], name).samples)


def lies_in_a_map(samples: Array, path: Path) -> bool:
    """Whether an array's bytes are pages of a file, as the kernel tells."""
    address = samples.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, stop = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address and address + samples.nbytes <= stop:
                return True
    return False


def test_arrow_is_plain_arrow_for_others(shard: Path, tmp_path: Path) -> None:
    run(job_of(output_format="arrow"), shard, tmp_path / "out")
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "out" / "s.arrow"))).read_all()
    assert table.schema.field("clean").type == pa.fixed_shape_tensor(pa.uint8(), (24, 24, 3))
    tensor = table["clean"].chunk(0).to_numpy_ndarray()
    np.testing.assert_array_equal(tensor, open_arrow(tmp_path / "out" / "s.arrow").pictures(0)[0])
    assert json.loads(table["json"][0].as_py())["key"] == table["key"][0].as_py() == "00-p00000"


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_columns_are_reported_like_damaged_tars(shard: Path, tmp_path: Path, kind: str) -> None:
    run(job_of(output_format=kind), shard, tmp_path / "out")
    path = tmp_path / "out" / f"s.{kind}"
    path.write_bytes(path.read_bytes()[:-100])
    (record,) = read_shard(str(path))
    assert record.error is not None
    assert record.error.reason is Reason.BAD_SHARD
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    (record,) = read_shard(str(tmp_path / "foreign.parquet"))
    assert record.error is not None
    assert "conservator" in record.error.detail


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_format": "arrow", "clean_format": "webp"}, "--clean_format webp with --output_format arrow"),
        ({"output_format": "arrow", "degraded_format": "png"}, "--degraded_format png"),
        ({"output_format": "arrow", "patch_size": 0, "patches_per_image": 0}, "--patch_size"),
        ({"output_format": "folder", "shard_mb": 1}, "--shard_mb"),
        ({"validation_share": 1.5}, "0.05 for a twentieth"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        job_of(**options)


@pytest.mark.parametrize(
    ("chain", "blamed"),
    [
        ("{resize: {scale: {uniform: [0.3, 0.9]}}}", "resize"),
        ("{sequence: [{gaussian_blur: {sigma: 1}}, {resize: {scale: {choice: [1/2, 1/4]}}}, round_to_8bit]}", "resize"),
        ("{sequence: [{resize: {scale: 1/2}}, {maybe: {probability: 0.3, grayscale: {}}}]}", "grayscale"),
        ("{sequence: [{resize: {scale: {uniform: [0.4, 0.9]}}}, {resize: {scale: 1/2}}]}", "resize"),
    ],
)
def test_sizes_that_are_drawn_are_refused_for_arrow_before_the_start(tmp_path: Path, chain: str, blamed: str) -> None:
    """Every pair but the first became a dead letter."""
    recipe = written(tmp_path, f"kind: degradation\ndescription: x\nsource: x\nchannels: rgb\ndegradation: {chain}\n")
    with pytest.raises(ConfigurationError, match=f"'{blamed}' gives .* write parquet or tar"):
        job_of(recipe=recipe, patch_size=32, output_format="arrow")
    for kind in ("tar", "parquet"):
        assert job_of(recipe=recipe, patch_size=32, output_format=kind).output_format == kind


@pytest.mark.parametrize("recipe", ["bsrgan", "sr-x3", "old-photo"])
def test_sizes_that_are_drawn_on_the_way_to_one_size_fit_into_arrow(recipe: str) -> None:
    assert job_of(recipe=recipe, patch_size=96, output_format="arrow").output_format == "arrow"


@pytest.mark.parametrize(
    "options", [{"patch_size": 250}, {"patch_size": -4}, {"patch_size": 0, "patches_per_image": -1}]
)
def test_patches_that_no_worker_could_cut_are_refused_before_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="patch_size"):
        job_of(recipe="bsrgan", **options)


@pytest.mark.parametrize("io_threads", [1, 4])
def test_a_picture_of_another_shape_is_a_dead_letter_of_an_arrow_shard(
    tmp_path: Path, photo: Array, io_threads: int
) -> None:
    pictures = {"a": photo[:40, :40], "b": photo[:40, :40, 0], "c": photo[40:80, :40]}
    source = write_tar(tmp_path / "in" / "s.tar", {f"{key}.png": png(pixels) for key, pixels in pictures.items()})
    ledger = run(job_of(output_format="arrow"), source, tmp_path / "out", io_threads)
    (letter,) = ledger["dead_letters"]
    assert (letter["key"], letter["reason"], letter["stage"]) == ("b", "size_mismatch", "write")
    assert "24x24x1" in letter["detail"]
    assert "channels: rgb" in letter["detail"]
    assert {record.key[0] for record in read_arrow(str(tmp_path / "out" / "s.arrow"))} == {"a", "c"}
    assert (ledger["counts"]["records_in"], ledger["counts"]["records_out"]) == (3, 6)
    assert {row["key"][0] for row in ledger["records"]} == {"a", "c"}


def test_a_column_never_mixes_codecs(tmp_path: Path) -> None:
    from transforms.formats.parquet import ParquetWriter

    writer = ParquetWriter(tmp_path / "a.parquet", {})
    writer.write_record("a", [("clean.png", b"1")])
    with pytest.raises(ValueError, match=r"b.clean.webp: the column holds clean.png"):
        writer.write_record("b", [("clean.webp", b"2")])


# ---------------------------------------------------------------- pictures of unlike shapes, and arrays


SMALLER = """
kind: degradation
description: a quarter of the size, and grey
source: none
channels: rgb
patches: {size: 32, per_image: 2}
degradation: {sequence: [{resize: {scale: 1/4}}, grayscale, round_to_8bit]}
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", SHARDS)
def test_a_pair_of_unlike_shapes_has_no_damage_figure_and_is_fine_otherwise(
    shard: Path, tmp_path: Path, kind: str
) -> None:
    job = job_of(recipe=written(tmp_path, SMALLER), patch_size=0, patches_per_image=0, output_format=kind)
    ledger = run(job, shard, tmp_path / "out")
    assert ledger["dead_letters"] == []
    assert len(ledger["records"]) == 12
    for found in records_in(tmp_path / "out").values():
        details = described(found)
        assert details["metrics"] == {}
        assert "damage not measured: the degraded picture has another size" in details["notes"]
        shapes = [decode(found[name], name).samples.shape for name in (clean_field(found) or "", degraded_field(found))]
        assert shapes == [(32, 32, 3), (8, 8, 1)]
    with tarfile.open(tmp_path / "out" / "_ledger" / "s.samples.tar") as samples:
        assert samples.getnames()


@pytest.mark.parametrize("kind", SHARDS)
def test_arrays_travel_with_the_pair(shard: Path, tmp_path: Path, kind: str) -> None:
    job = job_of(recipe=written(tmp_path, WITH_ARRAYS), patch_size=0, patches_per_image=0, output_format=kind)
    run(job, shard, tmp_path / "out")
    for found in records_in(tmp_path / "out").values():
        kernel = npy_array(found["kernel.npy"])
        assert kernel.dtype == np.float32
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        mask = decode(found["mask.png"], "mask.png").samples
        assert mask.shape == (32, 32, 1)
        assert set(np.unique(mask)) <= {0, 255}


def test_a_folder_of_pairs_with_masks_is_a_folder_of_pairs(shard: Path, tmp_path: Path) -> None:
    """KEY.mask.png once was a picture of its own, to be restored beside its pair."""
    job = job_of(recipe=written(tmp_path, WITH_ARRAYS), patch_size=0, patches_per_image=0, output_format="folder")
    run(job, shard, tmp_path / "out")
    members = [member for unit in plan_units(str(tmp_path / "out" / "s")).units for member in unit.members]
    assert {member.field for member in members} == {"clean.png", "degraded.png", "json", "kernel.npy", "mask.png"}
    assert len({member.key for member in members}) == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that reader leaves its file open
def test_the_webdataset_package_reads_every_codec(shard: Path, tmp_path: Path) -> None:
    for codec in ("png", "webp", "npy", "jpeg"):
        run(job_of(clean_format=codec, degraded_format=codec), shard, tmp_path / codec)
        samples = list(webdataset.WebDataset(str(tmp_path / codec / "s.tar"), shardshuffle=False))
        found = {s["__key__"]: {name: data for name, data in s.items() if not name.startswith("__")} for s in samples}
        assert found == records_in(tmp_path / codec)


# ---------------------------------------------------------------- shards of columns as an input


def test_column_shards_are_an_input_where_they_are_meant(shard: Path, tmp_path: Path, photo: Array) -> None:
    for kind in ("parquet", "arrow"):
        run(job_of(output_format=kind), shard, tmp_path / kind)
        (unit,) = plan_units(str(tmp_path / kind)).units
        assert (unit.name, unit.kind) == ("s", kind)
        assert plan_units(str(tmp_path / kind / "*.*")).units == (unit,)
        ledger = run(job_of(patch_size=16), unit, tmp_path / f"{kind}-again")
        assert len(ledger["records"]) == 18 * 3
    (tmp_path / "parquet" / "photo.png").write_bytes(png(photo[:30, :30]))
    plan = plan_units(str(tmp_path / "parquet"))  # a table beside pictures is somebody's index of them
    assert [unit.kind for unit in plan.units] == ["folder"]
    assert plan.ignored == ("s.parquet",)


# ---------------------------------------------------------------- the command line


def test_same_bytes_for_one_worker_two_workers_and_none(shard: Path, tmp_path: Path, photo: Array) -> None:
    second = write_tar(tmp_path / "in" / "t.tar", {f"t{key}.png": png(crop) for key, crop in crops(photo, 4).items()})
    assert second.exists()
    flags = ["--recipe", "gaussian-25", "--patch_size", "24", "--patches_per_image", "3", "--validation_share", "0.3"]
    flags += ["--output_format", "parquet", "--shard_mb", "1", "--clean_format", "webp", "--quiet"]
    words = ["degrade", "--input", str(tmp_path / "in"), *flags]
    assert main([*words, "--output", str(tmp_path / "none"), *INLINE]) == 0
    for workers in ("1", "2"):
        assert main([*words, "--output", str(tmp_path / workers), "--num_local_workers", workers]) == 0
    results = [files_of(tmp_path / name) for name in ("none", "1", "2")]
    assert results[0] == results[1] == results[2]
    assert {name.partition("/")[0] for name in results[0]} == {"train", "validation"}
    counts = json.loads((tmp_path / "2" / "report" / "summary.json").read_text())["counts"]
    assert counts["records_train"] + counts["records_validation"] == counts["records_out"] == 30


@pytest.mark.parametrize(
    ("kind", "clean", "degraded"),
    [
        ("tar", "npy", "npy"),
        ("tar", "npy", "npy-rounded"),
        ("folder", "webp", "webp"),
        ("parquet", "jpeg", "png"),
        ("arrow", "", ""),
    ],
)
def test_restore_reads_every_way_of_storing(
    shard: Path, tmp_path: Path, negative_model: Path, kind: str, clean: str, degraded: str
) -> None:
    job = job_of(output_format=kind, clean_format=clean, degraded_format=degraded)
    run(job, shard, tmp_path / "pairs")
    words = [
        "restore",
        "--input",
        str(tmp_path / "pairs"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        str(negative_model),
    ]
    assert main([*words, *INLINE]) == 0
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary["counts"]["records_out"] == 18
    assert summary["metrics"]["psnr[rgb,u8]"]["count"] == 18  # against the clean half, whatever its codec
