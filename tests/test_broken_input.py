"""Archives with everything that real ones hold: each broken record is named with its reason, each good one restored."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data as photographs

from pipelines.main import main
from pipelines.options import RestoreOptions
from pipelines.verbs import job_of, plan_retry, read_manifest
from transforms.dead_letters import read_dead_letters
from transforms.formats.tar import TarWriter, read_tar
from transforms.pictures import decode
from transforms.storage import OutputStore
from transforms.unit_pipeline import WorkerOptions, process_unit

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
PHOTO: NDArray[np.uint8] = photographs.astronaut()[100:148, 60:116]  # 48 x 56
DEEP: NDArray[np.uint16] = PHOTO.astype(np.uint16) * 256 + PHOTO[::-1]  # the low bytes matter
GREY: NDArray[np.uint8] = PHOTO[:, :, 1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)  # the network answers NaN for the one and fails on the other
Array = NDArray[Any]


@pytest.fixture(scope="session")
def picky_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 1 - x for colour pictures; NaN where a pixel is pure magenta, and no answer at all to pure green."""
    import onnx
    from onnx import TensorProto, helper

    def found(colour: tuple[int, ...], name: str, table: list[float]) -> tuple[list[Any], list[Any]]:
        """Looks `table` up at 1 where a pixel has this colour, at 0 elsewhere."""
        nodes = [
            helper.make_node("Equal", ["x", f"{name} colour"], [f"{name} same"]),
            helper.make_node("Cast", [f"{name} same"], [f"{name} ones"], to=TensorProto.INT64),
            helper.make_node("ReduceMin", [f"{name} ones"], [f"{name} index"], axes=[1], keepdims=1),
            helper.make_node("Gather", [f"{name} table", f"{name} index"], [name]),
        ]
        constants = [
            helper.make_tensor(f"{name} colour", TensorProto.FLOAT, [1, 3, 1, 1], [value / 255 for value in colour]),
            helper.make_tensor(f"{name} table", TensorProto.FLOAT, [len(table)], table),
        ]
        return nodes, constants

    poison, poison_constants = found(MAGENTA, "poison", [0.0, float("nan")])
    crash, crash_constants = found(GREEN, "crash", [0.0])  # there is no entry at 1
    shape = ["n", 3, "height", "width"]
    graph = helper.make_graph(
        [
            *poison,
            *crash,
            helper.make_node("Sub", ["one", "x"], ["negative"]),
            helper.make_node("Sum", ["negative", "poison", "crash"], ["y"]),
        ],
        "picky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]), *poison_constants, *crash_constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("models") / "picky.onnx"
    onnx.save(model, path)
    return path


# ---------------------------------------------------------------- pictures, whole and broken


def saved(pixels: Array | Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, form, **options)
    return file.getvalue()


def tiff(samples: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **({"photometric": "rgb"} | options))
    return file.getvalue()


def deep_png(samples: Array) -> bytes:
    return bytes(imagecodecs.png_encode(samples))


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def frames(form: str) -> bytes:
    return saved(Image.fromarray(PHOTO), form, save_all=True, append_images=[Image.fromarray(PHOTO[::-1])])


def with_pixel(colour: tuple[int, int, int]) -> bytes:
    pixels = PHOTO.copy()
    pixels[20, 30] = colour
    return saved(pixels, "PNG")


def bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bad_checksum() -> bytes:
    data = bytearray(saved(PHOTO, "PNG"))
    data[len(data) // 2] ^= 16
    return bytes(data)


def broken_huffman() -> bytes:
    data = bytearray(saved(PHOTO, "JPEG"))
    table = data.index(b"\xff\xc4") + 5
    data[table : table + 16] = b"\xff" * 16
    return bytes(data)


PNG = saved(PHOTO, "PNG")
JPEG = saved(PHOTO, "JPEG", quality=90)

# name -> fields of the record, reason
BROKEN: dict[str, tuple[dict[str, bytes], str]] = {
    "zero-bytes": ({"png": b""}, "empty"),
    "png-cut": ({"png": half(PNG)}, "truncated"),
    "png-without-its-end": ({"degraded.png": PNG[:-12]}, "truncated"),
    "jpeg-cut": ({"jpg": half(JPEG)}, "truncated"),
    "webp-cut": ({"webp": half(saved(PHOTO, "WEBP"))}, "truncated"),
    "tiff-cut": ({"tif": half(tiff(PHOTO))}, "truncated"),
    "bmp-cut": ({"bmp": half(saved(PHOTO, "BMP"))}, "truncated"),
    "jpeg-called-png": ({"png": JPEG}, "wrong_extension"),
    "bomb": ({"png": bomb()}, "too_large"),
    "web-page": ({"jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>"}, "not_an_image"),
    "text": ({"png": b"to be done\n" * 30}, "not_an_image"),
    "bad-checksum": ({"png": bad_checksum()}, "corrupt"),
    "broken-huffman": ({"jpg": broken_huffman()}, "corrupt"),
    "gif-called-png": ({"png": saved(Image.fromarray(PHOTO).quantize(), "GIF")}, "unsupported"),
    "pages": ({"tif": frames("TIFF")}, "unsupported"),
    "moving": ({"webp": frames("WEBP")}, "unsupported"),
    "float-tiff": ({"tif": tiff(PHOTO.astype(np.float32))}, "unsupported"),
    "no-picture": ({"json": b"{}", "txt": b"nothing here"}, "no_image"),
    "only-a-reference": ({"clean.png": PNG}, "no_image"),
    "two-pictures": ({"png": PNG, "jpg": JPEG}, "ambiguous"),
    "two-degraded": ({"degraded.png": PNG, "degraded.jpg": JPEG}, "ambiguous"),
    "small-reference": ({"degraded.png": PNG, "clean.png": saved(PHOTO[:40], "PNG")}, "size_mismatch"),
    "cut-reference": ({"degraded.png": PNG, "clean.png": half(PNG)}, "truncated"),
    "json-cut": ({"png": PNG, "json": b'{"parameters": {"sigma"'}, "bad_metadata"),
    "json-list": ({"png": PNG, "json": b"[1, 2]"}, "bad_metadata"),
    "not-a-number": ({"png": with_pixel(MAGENTA)}, "non_finite"),
    "network-fails": ({"png": with_pixel(GREEN)}, "operator_failed"),
}
# What is wrong with the shard and not with a picture: members as they stand, key, reason
MISPLACED: list[tuple[list[tuple[str, bytes]], str, str]] = [
    ([("twice.png", PNG), ("twice.png", PNG)], "twice", "duplicate"),
    ([("good-00.png", PNG)], "good-00", "duplicate"),  # a key that came before
    ([("../outside.png", PNG)], "../outside.png", "bad_key"),
    ([("/etc/passwd.png", PNG)], "/etc/passwd.png", "bad_key"),
    ([("README", b"about this archive")], "README", "bad_key"),
    ([("caf\udce9.png", PNG)], "caf\udce9.png", "bad_key"),  # Latin-1, not UTF-8
]
GOOD: list[tuple[str, bytes]] = [
    ("png", PNG),
    ("jpg", JPEG),
    ("webp", saved(PHOTO, "WEBP")),
    ("tif", tiff(DEEP)),
    ("bmp", saved(PHOTO, "BMP")),
    ("degraded.png", saved(GREY, "PNG")),
    ("png", deep_png(DEEP)),
    ("degraded.png", saved(np.dstack([PHOTO, GREY]), "PNG")),
]


@dataclass
class Archive:
    """A shard of good and broken records, and what has to become of it."""

    members: list[tuple[str, bytes]] = field(default_factory=list)
    good: dict[str, bytes] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)  # key, reason

    def add_good(self) -> None:
        name, data = GOOD[len(self.good) % len(GOOD)]
        key = f"good-{len(self.good):02d}"
        self.members.append((f"{key}.{name}", data))
        self.good[key] = data

    def write(self, path: Path) -> None:
        write_tar(path, self.members)


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with TarWriter(path) as shard:
        for name, data in members:
            shard.write(name, data)


def mixed_archive() -> Archive:
    """A good record before and after each broken one."""
    archive = Archive()
    archive.add_good()
    for name, (fields, reason) in BROKEN.items():
        archive.members += [(f"broken/{name}.{field}", data) for field, data in fields.items()]
        archive.broken.append((f"broken/{name}", reason))
        archive.add_good()
    for members, key, reason in MISPLACED:
        archive.members += members
        archive.broken.append((key, reason))
        archive.add_good()
    return archive


def restore(source: Path, output: Path, model: Path, *more: str) -> int:
    words = ["restore", "--input", str(source), "--output", str(output), "--model", str(model)]
    return main([*words, *INLINE, *more])


def negative(data: bytes) -> Array:
    samples = decode(data, "picture.any").samples
    return np.asarray(np.iinfo(samples.dtype).max - samples)


def tars(output: Path) -> dict[str, bytes]:
    """Shards and dead letters; the report's samples are not the same after a retry."""
    found = [*output.glob("*.tar"), *output.glob("_failed/*.tar")]
    return {str(path.relative_to(output)): path.read_bytes() for path in found}


def dead_letters(output: Path, unit: str) -> list[tuple[str, str]]:
    ledger = json.loads((output / "_ledger" / f"{unit}.json").read_text())
    return [(letter["key"], letter["reason"]) for letter in ledger["dead_letters"]]


@dataclass
class Outcome:
    archive: Archive
    source: Path
    output: Path
    code: int


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, picky_model: Path) -> Outcome:
    """The archive and what one run made of it; tests that change the output take a copy."""
    folder = tmp_path_factory.mktemp("broken")
    archive = mixed_archive()
    archive.write(folder / "mixed.tar")
    return Outcome(
        archive, folder / "mixed.tar", folder / "out", restore(folder / "mixed.tar", folder / "out", picky_model)
    )


@pytest.fixture
def output(outcome: Outcome, tmp_path: Path) -> Path:
    return Path(shutil.copytree(outcome.output, tmp_path / "out"))


# ---------------------------------------------------------------- one shard of everything


def test_exactly_the_broken_records_become_dead_letters(outcome: Outcome) -> None:
    assert len(BROKEN) >= 20
    assert outcome.code == 3
    assert dead_letters(outcome.output, "mixed") == outcome.archive.broken


def test_all_good_records_are_restored(outcome: Outcome) -> None:
    restored = {record.key: record.fields for record in read_tar(str(outcome.output / "mixed.tar"))}
    assert list(restored) == list(outcome.archive.good)
    for key, data in outcome.archive.good.items():
        picture = decode(restored[key]["restored.png"], "restored.png")
        np.testing.assert_array_equal(picture.samples, negative(data), err_msg=key)
        alpha = decode(data, "picture.any").alpha
        assert (picture.alpha is None) == (alpha is None)
        if alpha is not None:
            np.testing.assert_array_equal(picture.alpha, alpha)
        assert json.loads(restored[key]["json"])["key"] == key


def test_dead_letters_keep_the_original_bytes(outcome: Outcome) -> None:
    letters = {record.key: record.fields for record in read_dead_letters(str(outcome.output / "_failed" / "mixed.tar"))}
    assert len(letters) == len(BROKEN) + len(MISPLACED)
    for name, (fields, _) in BROKEN.items():
        assert letters[f"broken/{name}"] == fields
    assert letters["../outside.png"] == {"bin": PNG}
    assert all(
        ".." not in name and not name.startswith("/") for name in members_of(outcome.output / "_failed" / "mixed.tar")
    )


def members_of(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_the_report_lists_every_reason(outcome: Outcome) -> None:
    summary = json.loads((outcome.output / "report" / "summary.json").read_text())
    expected = Counter(reason for _, reason in outcome.archive.broken)
    assert summary["dead_letters"]["by_reason"] == expected
    assert summary["counts"]["records_in"] == len(outcome.archive.good) + len(outcome.archive.broken)
    assert summary["counts"]["records_out"] == len(outcome.archive.good)
    page = (outcome.output / "report" / "index.html").read_text(encoding="utf-8")
    for key, reason in outcome.archive.broken:
        assert reason in page
        assert key.encode("unicode_escape").decode() in page or key in page


def test_the_share_of_failures_decides_the_exit_code(outcome: Outcome, output: Path, picky_model: Path) -> None:
    failed, total = len(outcome.archive.broken), len(outcome.archive.broken) + len(outcome.archive.good)
    for ratio, code in ((1.0, 0), (failed / total, 0), (failed / total - 0.01, 3)):
        assert (
            restore(outcome.source, output, picky_model, "--max_failed_ratio", str(ratio)) == code
        )  # nothing is done again
    assert tars(output) == tars(outcome.output)


# ---------------------------------------------------------------- retry


def test_retry_with_nothing_changed_leaves_everything_as_it_was(outcome: Outcome, output: Path) -> None:
    for _ in range(2):
        assert main(["retry", "--output", str(output), *INLINE]) == 3
        assert tars(output) == tars(outcome.output)
        assert dead_letters(output, "mixed") == outcome.archive.broken
    assert main(["retry", "--output", str(output), *INLINE, "--max_failed_ratio", "1"]) == 0
    assert main(["restore", "--input", str(outcome.source), *as_before(output), *INLINE]) == 3


def as_before(output: Path) -> list[str]:
    options = json.loads((output / "_ledger" / ".run.json").read_text())["options"]
    return ["--output", str(output), "--model", options["model"]]


CURED = {
    "zero-bytes": "png",
    "png-cut": "png",
    "jpeg-cut": "jpg",
    "bomb": "png",
    "json-cut": "json",
    "not-a-number": "png",
}


def cure(name: str) -> bytes:
    return {"png": PNG, "jpg": JPEG, "json": b'{"parameters": {"sigma": 1}}'}[CURED[name]]


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "packed in another order"])
def test_an_operator_mends_dead_letters_with_tar(
    outcome: Outcome, output: Path, tmp_path: Path, picky_model: Path, order: int
) -> None:
    letters, workbench = output / "_failed" / "mixed.tar", tmp_path / "workbench"
    workbench.mkdir()
    subprocess.run(["tar", "-xf", letters], cwd=workbench, check=True)
    for name, ending in CURED.items():
        (found,) = workbench.glob(f"*/broken/{name}.{ending}")
        found.write_bytes(cure(name))
    packed = sorted((path.name for path in workbench.iterdir()), reverse=order < 0)
    subprocess.run(["tar", "-cf", letters, *(f"./{name}" for name in packed)], cwd=workbench, check=True)

    assert main(["retry", "--output", str(output), *INLINE]) == 3
    expected = [(key, reason) for key, reason in outcome.archive.broken if key.rpartition("/")[2] not in CURED]
    assert dead_letters(output, "mixed") == expected
    mended = [
        (
            name,
            cure(key)
            if (key := name.rpartition("/")[2].partition(".")[0]) in CURED and name.endswith(CURED[key])
            else data,
        )
        for name, data in outcome.archive.members
    ]
    write_tar(tmp_path / "mixed.tar", mended)
    assert restore(tmp_path / "mixed.tar", tmp_path / "fresh", picky_model) == 3
    assert (output / "mixed.tar").read_bytes() == (tmp_path / "fresh" / "mixed.tar").read_bytes()
    fresh_letters = {
        letter.index: letter for letter in read_dead_letters(str(tmp_path / "fresh" / "_failed" / "mixed.tar"))
    }
    assert {letter.index: letter.fields for letter in read_dead_letters(str(letters))} == {
        index: letter.fields for index, letter in fresh_letters.items()
    }
    summary = json.loads((output / "report" / "summary.json").read_text())
    assert summary["counts"]["records_out"] == len(outcome.archive.good) + len(CURED)
    assert summary["counts"]["records_in"] == len(outcome.archive.good) + len(outcome.archive.broken)


@dataclass(frozen=True)
class Crashing(OutputStore):
    """Dies right before the `number`-th change."""

    left: list[int] = field(default_factory=list)

    def _count(self) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left.pop()

    def publish(self, finished: Path, name: str) -> None:
        self._count()
        super().publish(finished, name)

    def write(self, name: str, data: bytes) -> None:
        self._count()
        super().write(name, data)

    def remove(self, names: Iterable[str]) -> None:
        self._count()
        super().remove(names)


@pytest.mark.parametrize("complete", [True, False], ids=["all mended", "some mended"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead process leaves its file open
def test_a_retry_that_dies_loses_and_doubles_nothing(tmp_path: Path, picky_model: Path, complete: bool) -> None:
    """Fully recovered dead letters stayed where they were, and the next retry put their records in a second time."""
    write_tar(
        tmp_path / "a.tar", [("0.png", PNG), ("1.png", b""), ("2.png", PNG), ("3.png", half(PNG)), ("4.png", PNG)]
    )
    assert restore(tmp_path / "a.tar", tmp_path / "first", picky_model) == 3
    mended = [
        ("0.png", PNG),
        ("1.png", PNG if complete else b""),
        ("2.png", PNG),
        ("3.png", PNG),
        ("4.png", PNG),
    ]
    write_tar(tmp_path / "mended" / "a.tar", mended)
    restore(tmp_path / "mended" / "a.tar", tmp_path / "whole", picky_model)
    options = RestoreOptions(input=str(tmp_path / "a.tar"), output=str(tmp_path), model=str(picky_model))
    job = job_of(options)
    work = job.load()
    for number in range(4):  # before the shard, the ledger, the dead letters, and not at all
        output = Path(shutil.copytree(tmp_path / "first", tmp_path / f"crash-{number}"))
        letters = output / "_failed" / "a.tar"
        with tarfile.open(letters) as archive:
            members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
        cured = {f"{n:06d}/{n}.png": PNG for n in ((1, 3) if complete else (3,))}
        write_tar(letters, [(name, cured.get(name, data)) for name, data in members])
        store = Crashing(str(output), [0] * number)
        died = False
        try:
            process_unit(plan_retry(store, read_manifest(store)["units"]).units[0], job, work, store, WorkerOptions())
        except KeyboardInterrupt:
            died = True
        assert died == (number < 3)
        for _ in range(2):
            for unit in plan_retry(store, read_manifest(store)["units"]).units:
                process_unit(unit, job, work, OutputStore(str(output)), WorkerOptions())
        assert tars(output) == tars(tmp_path / "whole")
    assert main(["retry", "--output", str(output), *INLINE]) == (0 if complete else 3)
    assert tars(output) == tars(tmp_path / "whole")
    summary = json.loads((output / "report" / "summary.json").read_text())
    assert summary["counts"]["records_out"] == (5 if complete else 4)


@pytest.mark.parametrize("described", [None, b"", b"no json", b"[]", b'{"key": 1}'])
def test_a_dead_letter_without_its_description_is_no_reason_to_stop(
    outcome: Outcome, output: Path, described: bytes | None
) -> None:
    letters = output / "_failed" / "mixed.tar"
    with tarfile.open(letters) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    (lost,) = [name for name, _ in members if name.endswith("broken/text.failure.json")]
    kept = [(name, described if name == lost else data) for name, data in members]
    write_tar(letters, [(name, data) for name, data in kept if data is not None])
    assert main(["retry", "--output", str(output), *INLINE]) == 3
    expected = [(key, "bad_metadata" if key == "broken/text" else reason) for key, reason in outcome.archive.broken]
    assert dead_letters(output, "mixed") == expected
    assert (output / "mixed.tar").read_bytes() == (outcome.output / "mixed.tar").read_bytes()
    assert main(["retry", "--output", str(output), *INLINE]) == 3
    assert dead_letters(output, "mixed") == outcome.archive.broken  # and the next attempt finds the true reason again


# ---------------------------------------------------------------- shards that are damaged themselves


@pytest.mark.parametrize(
    ("name", "damage", "good"),
    [
        ("cut.tar", lambda data: data[: len(data) // 2 + 100], 2),
        ("cut.tar.gz", lambda data: data[: len(data) // 2], None),
        ("garbage.tar", lambda data: data[: 512 * (len(data) // 1024)] + b"\x01garbage" * 4096, None),
        ("empty.tar", lambda data: b"", 0),
        ("text.tar", lambda data: b"this is no archive\n" * 200, 0),
    ],
)
def test_a_damaged_shard_gives_what_stands_before_the_damage(
    tmp_path: Path, picky_model: Path, name: str, damage: Callable[[bytes], bytes], good: int | None
) -> None:
    rng = np.random.default_rng(0)
    pictures = [saved(rng.integers(1, 255, (40, 40, 3), dtype=np.uint8), "PNG") for _ in range(5)]  # does not compress
    write_tar(tmp_path / "whole.tar", [(f"{n}.png", data) for n, data in enumerate(pictures)])
    whole = (tmp_path / "whole.tar").read_bytes()
    if name.endswith("gz"):
        compressor = zlib.compressobj(wbits=31)
        whole = compressor.compress(whole) + compressor.flush()
    (tmp_path / name).write_bytes(damage(whole))
    assert restore(tmp_path / name, tmp_path / "out", picky_model) == 3
    unit = name.partition(".")[0]
    assert dead_letters(tmp_path / "out", unit)[-1] == (name, "bad_shard")
    restored = {record.key: record.fields["restored.png"] for record in read_tar(str(tmp_path / "out" / f"{unit}.tar"))}
    assert list(restored) == [str(n) for n in range(len(restored))]
    assert len(restored) == good if good is not None else 0 < len(restored) < 5
    for key, data in restored.items():
        np.testing.assert_array_equal(decode(data, "x.png").samples, negative(pictures[int(key)]))


# name -> what happens to a shard of a.png, b.png, c.png; keys that must come out; whether the damage must be told
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str, bool]] = {
    "none": (lambda data: data, "abc", False),
    "a bad header": (lambda data: data.replace(b"b.png", b"B.png"), "a", True),  # its checksum is wrong now
    "cut between two members": (lambda data: data[: data.index(b"c.png")], "ab", True),
    "no end mark": (lambda data: data[: data.index(b"c.png") + 512 + PADDED], "abc", True),
    "two shards in one file": (lambda data: data + data, "abc", True),
    "gzip": (gzip.compress, "abc", False),
    "gzip in two parts": (lambda data: gzip.compress(data[:3000]) + gzip.compress(data[3000:]), "abc", False),
    "gzip with padding": (lambda data: gzip.compress(data) + bytes(1000), "abc", False),
    "gzip with a wrong checksum": (lambda data: gzip.compress(data)[:-8] + bytes(8), "", True),
    "gzip without its end": (lambda data: gzip.compress(data)[:-8], "abc", True),
}
PADDED = -(-len(PNG) // 512) * 512


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damage_loses_records_without_a_word(tmp_path: Path, name: str) -> None:
    """Python's tarfile takes a bad header, and gzip's second part, for the end of the archive."""
    damage, keys, told = DAMAGES[name]
    write_tar(tmp_path / "whole.tar", [(f"{key}.png", PNG) for key in "abc"])
    (tmp_path / "x.tar").write_bytes(damage((tmp_path / "whole.tar").read_bytes()))
    records = list(read_tar(str(tmp_path / "x.tar")))
    good = [record for record in records if record.error is None]
    assert "".join(record.key for record in good).startswith(keys)
    assert all(record.fields == {"png": PNG} for record in good)
    assert [str(record.error.reason) for record in records if record.error is not None] == ["bad_shard"] * told


# ---------------------------------------------------------------- loose files


def camera_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A maker of cameras", orientation
    return exif


@dataclass(frozen=True)
class Loose:
    data: bytes
    mode: str  # as Pillow names it, of file and result


LOOSE: dict[str, Loose] = {
    "front page.png": Loose(PNG, "RGB"),
    "1931/a.jpg": Loose(saved(PHOTO, "JPEG", quality=90, exif=camera_exif(6), icc_profile=SRGB), "RGB"),
    "1931/grey.jpeg": Loose(saved(GREY, "JPEG", quality=90), "L"),
    "1931/05/grey.png": Loose(saved(GREY, "PNG"), "L"),
    "1931/05/deep.png": Loose(deep_png(DEEP), "RGB"),
    "1931/05/deep-grey.tif": Loose(tiff(DEEP[:, :, 0], photometric="minisblack"), "I;16"),
    "1931/05/deep.TIFF": Loose(tiff(DEEP), "RGB"),
    "1931/05/glass.png": Loose(saved(np.dstack([PHOTO, GREY]), "PNG", icc_profile=SRGB), "RGBA"),
    "scan.v2.final.bmp": Loose(saved(PHOTO, "BMP"), "RGB"),
    "scan.webp": Loose(saved(PHOTO, "WEBP", lossless=True, exif=camera_exif(1)), "RGB"),
    "same.png": Loose(PNG, "RGB"),
    "same.jpg": Loose(JPEG, "RGB"),
}
LOOSE_BROKEN = {
    "1931/cut.png": (half(PNG), "truncated"),
    "empty.jpg": (b"", "empty"),
    "x/page.tif": (frames("TIFF"), "unsupported"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    files = {name: loose.data for name, loose in LOOSE.items()} | {
        name: data for name, (data, _) in LOOSE_BROKEN.items()
    }
    for name, data in (files | {"1931/notes.txt": b"about 1931"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pictures_in(folder: Path) -> set[str]:
    endings = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in endings}
    return {name for name in found if not name.startswith("_")}


def test_a_tree_of_loose_files_is_mirrored(tree: Path, tmp_path: Path, picky_model: Path) -> None:
    output = tmp_path / "out"
    assert restore(tree, output, picky_model) == 3
    assert pictures_in(output) == set(LOOSE)
    for name, loose in LOOSE.items():
        data = (output / name).read_bytes()
        source, result = decode(loose.data, name), decode(data, name)
        assert result.kind == source.kind
        assert result.samples.dtype == source.samples.dtype
        assert Image.open(io.BytesIO(data)).mode == Image.open(io.BytesIO(loose.data)).mode == loose.mode
        difference = np.abs(result.samples.astype(int) - negative(loose.data))
        lossless = source.kind not in ("jpeg", "webp")
        assert difference.max() == 0 if lossless else difference.mean() < 3, name
        assert (result.alpha is None) == (source.alpha is None)
        if source.alpha is not None:
            np.testing.assert_array_equal(result.alpha, source.alpha)
    summary = json.loads((output / "report" / "summary.json").read_text())
    assert summary["dead_letters"]["by_reason"] == {"truncated": 1, "empty": 1, "unsupported": 1}


def test_what_belongs_to_a_picture_survives_the_whole_command(tree: Path, tmp_path: Path, picky_model: Path) -> None:
    restore(tree, tmp_path / "out", picky_model)

    def result(name: str) -> Image.Image:
        return Image.open(io.BytesIO((tmp_path / "out" / name).read_bytes()))

    turned = result("1931/a.jpg")
    assert turned.size == PHOTO.shape[:2]  # orientation 6: width and height change places, once
    assert turned.getexif()[0x010F] == "A maker of cameras"
    assert turned.getexif().get(0x0112, 1) == 1
    assert turned.info["icc_profile"] == SRGB
    assert result("1931/05/glass.png").info["icc_profile"] == SRGB
    assert result("scan.webp").getexif()[0x010F] == "A maker of cameras"


def test_retry_puts_a_mended_loose_file_under_its_own_name_and_format(
    tree: Path, tmp_path: Path, picky_model: Path
) -> None:
    """It came back as KEY.restored.png: the dead letter had forgotten the file's name."""
    output = tmp_path / "out"
    restore(tree, output, picky_model)
    for letters in sorted((output / "_failed").iterdir()):
        with tarfile.open(letters) as archive:
            members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
        write_tar(letters, [(name, JPEG if name.endswith("empty.jpg") else data) for name, data in members])
    assert main(["retry", "--output", str(output), *INLINE]) == 3
    assert pictures_in(output) == {*LOOSE, "empty.jpg"}
    (tree / "empty.jpg").write_bytes(JPEG)
    restore(tree, tmp_path / "fresh", picky_model)
    assert (output / "empty.jpg").read_bytes() == (tmp_path / "fresh" / "empty.jpg").read_bytes()
    assert (output / "empty.json").read_bytes() == (tmp_path / "fresh" / "empty.json").read_bytes()


def test_a_file_name_that_is_no_utf8_is_a_dead_letter(tmp_path: Path, picky_model: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "good.png").write_bytes(PNG)
    (folder / "caf\udce9.png").write_bytes(PNG)
    assert restore(folder, tmp_path / "out", picky_model) == 3
    assert pictures_in(tmp_path / "out") == {"good.png"}
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary["dead_letters"]["by_reason"] == {"bad_key": 1}
