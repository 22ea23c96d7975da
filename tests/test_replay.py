"""`conservator replay`: pairs are made again from their JSON and the clean picture, and every difference is told."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pair_kit import png, write_tar

from pipelines.main import main
from pipelines.replay_sources import SearchedTar
from transforms.errors import RecordError
from transforms.formats.arrow import read_arrow
from transforms.formats.tar import read_tar
from transforms.pictures import decode
from transforms.raw_arrays import npy_array, npy_bytes
from transforms.value_range import samples_digest

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
EXAMPLES = yaml.safe_load((Path(__file__).parent / "operator_examples.yaml").read_text("utf-8"))
FITTING = [each for each in EXAMPLES if "valid" not in json.dumps(each)]  # kernels of 25 pixels need a larger patch
RECIPE = """
kind: degradation
description: blur, noise, JPEG, 8 bit
source: a test
patches: {size: 24, per_image: 3, flips: true, rotations: true}
degradation:
  sequence:
    - gaussian_blur: {sigma: {uniform: [0.5, 2]}}
    - gaussian_noise: {sigma: {uniform: [0.02, 0.1]}}
    - jpeg: {quality: {uniform: [30, 90]}}
    - round_to_8bit
"""


def degrade(*words: object) -> None:
    assert main(["degrade", *map(str, words), *INLINE]) == 0


Replay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Replay:
    """Runs the verb: exit code, what it printed, what it complained of."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["replay", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    """Two tars of three pictures each, and a folder of loose ones."""
    root = tmp_path_factory.mktemp("clean")
    crops = [photo[40 * n : 40 * n + 64, 30 * n : 30 * n + 72] for n in range(6)]
    for shard in range(2):
        members = {f"in/{n}.png": png(crops[3 * shard + n]) for n in range(3)}
        write_tar(root / "tars" / f"clean-{shard}.tar", members | {"broken.link": b"not a picture"})
    for n, crop in enumerate(crops[:4]):
        (root / "loose" / f"part{n % 2}").mkdir(parents=True, exist_ok=True)
        (root / "loose" / f"part{n % 2}" / f"a.{n}.png").write_bytes(png(crop if n else crop[..., 0]))
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "blur-and-noise.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, clean: Path, recipe: Path) -> Path:
    """The output of a run over the tars."""
    output = tmp_path_factory.mktemp("made") / "pairs"
    tars = clean / "tars" / "clean-{0..1}.tar"
    code = main(["degrade", "--input", str(tars), "--output", str(output), "--recipe", str(recipe), "--seed", "5", *INLINE,
                 "--max_failed_ratio", "1"])  # fmt: skip
    assert code == 0
    return output


def copied(made: Path, folder: Path) -> Path:
    """A copy of a run that a test may spoil."""
    return Path(shutil.copytree(made, folder / "copy"))


def rewrite(shard: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Changes the members of a shard."""
    with tarfile.open(shard) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
    write_tar(shard, {name: change(name, data) for name, data in members.items()})


def change_json(shard: Path, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the JSON of one pair."""

    def changed(name: str, data: bytes) -> bytes:
        if name != f"{key}.json":
            return data
        details = json.loads(data)
        change(details)
        return json.dumps(details).encode()

    rewrite(shard, changed)


# ---------------------------------------------------------------- the same


@pytest.mark.timeout(900)  # half a minute of one core; machines of continuous integration are shared
def test_five_hundred_random_pairs_of_twenty_thousand_are_made_again(
    tmp_path: Path, photo: NDArray[np.uint8], replay: Replay
) -> None:
    """Every operator of the library takes part, as the examples of the contract suite set it."""
    for shard in range(4):
        crops = {f"{n}.png": png(photo[90 * shard + 7 * n :, 40 * n :][:96, :96]) for n in range(10)}
        write_tar(tmp_path / f"clean-{shard}.tar", crops)
    document = {
        "kind": "degradation", "description": "any operator", "source": "the contract suite",
        "patches": {"size": 16, "per_image": 500, "flips": True, "rotations": True},
        "degradation": {"one_of": [{each: {}} if isinstance(each, str) else each for each in FITTING]},
    }  # fmt: skip
    (tmp_path / "any.json").write_text(json.dumps(document))
    degrade("--input", tmp_path / "clean-*.tar", "--output", tmp_path / "pairs", "--recipe", tmp_path / "any.json")
    summary = json.loads((tmp_path / "pairs" / "report" / "summary.json").read_text())
    assert summary["counts"]["records_out"] == 20_000
    shutil.rmtree(tmp_path / "pairs" / "report")
    (tmp_path / "any.json").unlink()  # the JSON of the pairs is enough
    code, said, _ = replay("--shard", tmp_path / "pairs", "--sample", 500, "--seed", 3)
    assert code == 0, said
    lines = said.splitlines()
    assert len(set(lines[:-1])) > 450  # keys repeat between the shards
    assert all(line.startswith("same ") for line in lines[:-1])
    assert lines[-1] == "500 pairs made again: 500 same, 0 different"
    operators = Counter(
        name
        for record in read_tar(str(tmp_path / "pairs" / "clean-0.tar"))
        for step in json.loads(record.fields["json"])["parameters"]["degradation"]
        for name in step
    )
    assert operators.keys() == {each if isinstance(each, str) else next(iter(each)) for each in FITTING}


def test_a_pair_is_made_again_by_its_key(made: Path, replay: Replay) -> None:
    code, said, _ = replay("--shard", made / "clean-1.tar", "--key", "in/2-p00001")
    assert code == 0
    assert said.splitlines() == ["same       in/2-p00001", "1 pair made again: 1 same, 0 different"]


def test_several_keys_of_several_shards_come_in_the_order_of_the_shards(made: Path, replay: Replay) -> None:
    code, said, _ = replay("--shard", made / "clean-{0..1}.tar", "--key", "in/2-p00002, in/0-p00000")
    assert code == 0
    assert [line.split()[1] for line in said.splitlines()[:2]] == ["in/0-p00000", "in/2-p00002"]


def test_the_same_sample_is_drawn_for_the_same_seed(made: Path, replay: Replay) -> None:
    drawn = [replay("--shard", made, "--sample", 6, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_sample_larger_than_the_shards_is_all_of_them(made: Path, replay: Replay) -> None:
    assert replay("--shard", made, "--sample", 1000)[1].splitlines()[-1].startswith("18 pairs made again: 18 same")


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_pairs_of_loose_pictures_are_made_again(
    kind: str, tmp_path: Path, clean: Path, recipe: Path, replay: Replay
) -> None:
    """Names with dots, a grey picture, folders."""
    degrade("--input", clean / "loose", "--output", tmp_path / "pairs", "--recipe", recipe, "--output_format", kind)
    code, said, err = replay("--shard", tmp_path / "pairs", "--sample", 100)
    assert (code, err) == (0, "")
    assert said.splitlines()[-1] == "12 pairs made again: 12 same, 0 different"


def test_float_pairs_of_whole_sixteen_bit_pictures_are_made_again(
    tmp_path: Path, photo: NDArray[np.uint8], replay: Replay
) -> None:
    import imagecodecs

    deep = photo[:40, :48].astype(np.uint16) * 257 + 3
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    for store in ("png", "npy"):
        words = ("--recipe", "gaussian-25", "--degraded_format", store)
        degrade("--input", tmp_path / "in", "--output", tmp_path / store, *words)
        assert replay("--shard", tmp_path / store, "--key", "deep")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--output_format", "parquet"),
        ("--output_format", "parquet", "--clean_format", "webp", "--degraded_format", "jpeg"),
        ("--output_format", "arrow"),
        ("--output_format", "arrow", "--degraded_format", "npy"),
        ("--clean_format", "npy", "--degraded_format", "npy-rounded"),
        ("--validation_share", "0.5"),
        ("--shuffle", "--shards", "3"),
    ],
    ids=" ".join,
)
def test_pairs_of_every_format_and_layout_are_made_again(
    words: tuple[str, ...], tmp_path: Path, clean: Path, recipe: Path, replay: Replay
) -> None:
    pictures = clean / ("loose" if "--shuffle" in words else "tars")  # the tars share keys, which can't be shuffled
    degrade("--input", pictures, "--output", tmp_path / "pairs", "--recipe", recipe, "--max_failed_ratio", 1, *words)
    kind = words[1] if words[0] == "--output_format" else "tar"
    shards = [*(tmp_path / "pairs").glob(f"*.{kind}"), *(tmp_path / "pairs").glob(f"[tv]*/*.{kind}")]
    for given in (tmp_path / "pairs", ",".join(map(str, shards))):
        code, said, err = replay("--shard", given, "--sample", 100)
        assert (code, err) == (0, "")
        pairs = 3 * len(list(pictures.rglob("*.png"))) or 18
        assert said.splitlines()[-1] == f"{pairs} pairs made again: {pairs} same, 0 different"


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_the_clean_pictures_may_stand_in_a_table(
    kind: str, tmp_path: Path, clean: Path, recipe: Path, replay: Replay
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = ("--max_failed_ratio", 1, "--output_format", kind)
    degrade("--input", clean / "tars" / "clean-1.tar", "--output", first, "--recipe", recipe, *words)
    degrade("--input", f"{first}/*.{kind}", "--output", second, "--recipe", "gaussian-25")
    code, said, err = replay("--shard", second, "--sample", 100)
    assert (code, err) == (0, "")
    assert said.splitlines()[-1] == "9 pairs made again: 9 same, 0 different"


def test_a_changed_picture_in_an_arrow_shard_is_noticed(
    tmp_path: Path, clean: Path, recipe: Path, replay: Replay
) -> None:
    words = ("--max_failed_ratio", 1, "--output_format", "arrow")
    degrade("--input", clean / "tars" / "clean-0.tar", "--output", tmp_path / "pairs", "--recipe", recipe, *words)
    (shard,) = (tmp_path / "pairs").glob("*.arrow")
    (record,) = [each for each in read_arrow(str(shard)) if each.key == "in/0-p00000"]
    samples = npy_array(record.fields["clean.npy"]).tobytes()
    shard.write_bytes(shard.read_bytes().replace(samples, bytes([samples[0] ^ 1]) + samples[1:]))
    code, said, _ = replay("--shard", shard, "--key", "in/0-p00000")
    assert code == 6
    assert "clean.npy is not the picture that was recorded: 1 of 1728 samples differ, by at most 1" in said


def test_pairs_are_made_again_after_the_run_was_called_from_another_folder(
    tmp_path: Path, clean: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, replay: Replay
) -> None:
    monkeypatch.chdir(clean)
    degrade("--input", "tars/clean-0.tar", "--output", tmp_path / "pairs", "--recipe", recipe, "--max_failed_ratio", 1)
    monkeypatch.chdir(tmp_path)
    assert replay("--shard", "pairs/clean-0.tar", "--key", "in/0-p00000")[0] == 0


def test_shards_and_sources_may_lie_in_an_object_store(clean: Path, recipe: Path, replay: Replay) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(clean / "tars" / "clean-0.tar"), "/replay/clean-0.tar")
    words = ("--recipe", recipe, "--max_failed_ratio", 1)
    degrade("--input", "memory://replay/clean-0.tar", "--output", "memory://replay-pairs", *words)
    code, said, err = replay("--shard", "memory://replay-pairs/clean-0.tar", "--sample", 3)
    assert (code, err) == (0, "")
    assert said.splitlines()[-1] == "3 pairs made again: 3 same, 0 different"


def test_the_pictures_are_written_as_they_stand_in_the_shard(made: Path, tmp_path: Path, replay: Replay) -> None:
    code, _, _ = replay("--shard", made / "clean-0.tar", "--key", "in/1-p00000", "--output", tmp_path / "again")
    assert code == 0
    (stored,) = [record for record in read_tar(str(made / "clean-0.tar")) if record.key == "in/1-p00000"]
    for role in ("clean.png", "degraded.png"):
        again = decode((tmp_path / "again" / "in" / f"1-p00000.{role}").read_bytes(), role).samples
        assert samples_digest(again) == samples_digest(decode(stored.fields[role], role).samples)


def test_pairs_of_two_shards_with_one_key_do_not_overwrite_each_other(
    made: Path, tmp_path: Path, replay: Replay
) -> None:
    assert replay("--shard", made, "--sample", 18, "--output", tmp_path / "again")[0] == 0
    assert len(list((tmp_path / "again").rglob("*.png"))) == 36


# ---------------------------------------------------------------- where the source is


def test_the_clean_pictures_may_have_moved(made: Path, clean: Path, tmp_path: Path, replay: Replay) -> None:
    moved = Path(shutil.copytree(made, tmp_path / "moved"))
    shutil.rmtree(moved / "_ledger")
    shutil.copytree(clean / "tars", tmp_path / "archive")
    code, _, err = replay("--shard", moved / "clean-0.tar", "--key", "in/0-p00000")
    assert code == 5
    assert "--input" in err
    assert replay("--shard", moved / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path / "archive")[0] == 0


def test_a_renamed_tar_is_searched_by_key(made: Path, clean: Path, tmp_path: Path, replay: Replay) -> None:
    shutil.copyfile(clean / "tars" / "clean-0.tar", tmp_path / "other-name.tar")
    assert replay("--shard", made / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path)[0] == 0


def test_a_key_that_two_renamed_tars_hold_is_not_guessed_at(
    made: Path, clean: Path, tmp_path: Path, replay: Replay
) -> None:
    for shard in range(2):
        shutil.copyfile(clean / "tars" / f"clean-{shard}.tar", tmp_path / f"other-{shard}.tar")
    code, _, err = replay("--shard", made / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path)
    assert code == 5
    assert "'other-0', 'other-1'" in err


def test_the_source_may_be_named_as_a_single_picture(
    made: Path, tmp_path: Path, photo: NDArray[np.uint8], replay: Replay
) -> None:
    (tmp_path / "the one.png").write_bytes(png(photo[:64, :72]))
    assert replay("--shard", made / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path / "the one.png")[0] == 0


def test_a_source_that_is_gone_is_named(made: Path, tmp_path: Path, photo: NDArray[np.uint8], replay: Replay) -> None:
    for n in range(2):
        (tmp_path / f"else{n}.png").write_bytes(png(photo[:64, :72]))
    code, _, err = replay("--shard", made / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path)
    assert code == 5
    assert "the source 'in/0' (png) of shard 'clean-0' is not in" in err


@pytest.mark.parametrize("compressed", [False, True])
def test_a_tar_is_read_only_as_far_as_the_picture(compressed: bool, tmp_path: Path) -> None:
    """What follows is cut off: a reader that went on would say that the shard is damaged."""
    write_tar(tmp_path / "a.tar", {f"{n}.png": bytes([n]) * 3_000 for n in range(9)})
    data = (tmp_path / "a.tar").read_bytes()[:18_000]
    if compressed:
        import gzip

        data = gzip.compress(data)
    (tmp_path / "cut.tar").write_bytes(data)
    with closing(SearchedTar(str(tmp_path / "cut.tar"))) as searched:
        assert searched.find("3", "png") == b"\3" * 3_000
        assert searched.find("1", "png") == b"\1" * 3_000
        with pytest.raises(RecordError, match="damaged"):
            searched.find("8", "png")


# ---------------------------------------------------------------- the same up to rounding


def nudge(shard: Path, key: str, change: Callable[[NDArray[Any]], object]) -> None:
    """Makes a shard hold, and its JSON record, a degraded picture that another machine would have come out with."""
    digests = {}

    def changed(name: str, data: bytes) -> bytes:
        if not name.startswith(f"{key}.degraded."):
            return data
        samples = np.array(npy_array(data) if name.endswith("npy") else decode(data, name).samples)
        change(samples)
        digests["degraded"] = samples_digest(samples)
        return npy_bytes(samples) if name.endswith("npy") else png(samples)

    rewrite(shard, changed)
    change_json(shard, key, lambda details: details["digests"].update(digests))


FIRST = (0, 0, 0)


def one_level(samples: NDArray[Any]) -> None:
    samples[FIRST] ^= 1


def two_levels(samples: NDArray[Any]) -> None:
    samples[FIRST] ^= 2


def one_level_of_a_row(samples: NDArray[Any]) -> None:
    samples[0] ^= 1


def a_bit_of_a_float(samples: NDArray[Any]) -> None:
    samples += np.float32(5e-7)


def a_level_of_a_float(samples: NDArray[Any]) -> None:
    samples[FIRST] += np.float32(1 / 255 if samples[FIRST] < 0.5 else -1 / 255)


def a_thousandth_of_a_float(samples: NDArray[Any]) -> None:
    samples[FIRST] += np.float32(1e-3)


def no_number(samples: NDArray[Any]) -> None:
    samples[FIRST] = np.nan


@pytest.mark.parametrize(
    ("stored", "change", "verdict"),
    [
        ("npy", a_bit_of_a_float, "rounding   a: same up to rounding (degraded: "),
        ("npy", a_level_of_a_float, "rounding   a: same up to rounding (degraded: 1 of 13824 samples differ, by at most 0.00392)"),
        ("npy", a_thousandth_of_a_float, "DIFFERENT"),
        ("npy", no_number, "DIFFERENT"),
        ("png", one_level, "rounding   a: same up to rounding (degraded: 1 of 13824 samples differ, by at most 1)"),
        ("png", two_levels, "DIFFERENT"),
        ("png", one_level_of_a_row, "DIFFERENT"),
    ],
)  # fmt: skip
def test_another_kind_of_cpu_is_not_called_another_picture(
    stored: str,
    change: Callable[[NDArray[Any]], object],
    verdict: str,
    tmp_path: Path,
    clean: Path,
    photo: NDArray[np.uint8],
    recipe: Path,
    replay: Replay,
) -> None:
    """BLAS of Haswell and of Skylake add up in another order: 5e-7 in floats, which the replay called DIFFERENT."""
    write_tar(tmp_path / "s.tar", {"a.png": png(photo[:64, :72]), "b.png": png(photo[64:128, :72])})
    words = ("--recipe", recipe, "--degraded_format", stored, "--whole")
    degrade("--input", tmp_path / "s.tar", "--output", tmp_path / "pairs", *words)
    shard = tmp_path / "pairs" / "s.tar"
    nudge(shard, "a", change)
    code, said, err = replay("--shard", shard, "--sample", 2)
    first, second, total = said.splitlines()
    assert first.startswith(verdict), (said, err)
    assert second == "same       b"
    is_same = verdict != "DIFFERENT"
    assert code == (0 if is_same else 6)
    counted = "1 same up to rounding, 0 different" if is_same else "1 different"
    assert total == f"2 pairs made again: 1 same, {counted}"


def test_a_picture_that_is_near_but_not_the_recorded_one_is_different(
    tmp_path: Path, made: Path, replay: Replay
) -> None:
    """Only what stands in the shard unchanged and without loss tells how far apart two machines are."""
    copy = copied(made, tmp_path)
    change_json(
        copy / "clean-0.tar", "in/0-p00000", lambda details: details["digests"].update(degraded="xxh3:" + "0" * 32)
    )  # the shard's picture is the one that is made again, and neither is the recorded one
    assert replay("--shard", copy / "clean-0.tar", "--key", "in/0-p00000")[0] == 6


def test_grey_pairs_in_webp_are_the_same(tmp_path: Path, photo: NDArray[np.uint8], replay: Replay) -> None:
    """WebP has no grey: three equal channels were called another picture."""
    write_tar(tmp_path / "s.tar", {"a.png": png(photo[:40, :48, 0])})
    words = ("--recipe", "gaussian-25", "--clean_format", "webp", "--degraded_format", "webp")
    degrade("--input", tmp_path / "s.tar", "--output", tmp_path / "pairs", *words)
    assert replay("--shard", tmp_path / "pairs", "--key", "a")[0] == 0


# ---------------------------------------------------------------- different


def test_another_parameter_is_told_with_the_distance(made: Path, tmp_path: Path, replay: Replay) -> None:
    copy = copied(made, tmp_path)

    def less_noise(details: dict[str, Any]) -> None:
        details["parameters"]["degradation"][1]["gaussian_noise"]["sigma"] *= 0.5

    change_json(copy / "clean-0.tar", "in/1-p00000", less_noise)
    code, said, _ = replay("--shard", copy / "clean-0.tar", "--key", "in/0-p00000,in/1-p00000")
    assert code == 6
    same, different, total = said.splitlines()
    assert same == "same       in/0-p00000"
    assert different.startswith("DIFFERENT  in/1-p00000: degraded comes out as ")
    assert "clean" not in different.replace("clean-0", "")
    assert "samples differ, by at most" in different
    assert total == "2 pairs made again: 1 same, 1 different"


def test_another_source_picture_makes_both_different(
    made: Path, tmp_path: Path, photo: NDArray[np.uint8], replay: Replay
) -> None:
    (tmp_path / "other.png").write_bytes(png(photo[100:164, 100:172]))
    code, said, _ = replay("--shard", made / "clean-0.tar", "--key", "in/0-p00000", "--input", tmp_path / "other.png")
    assert code == 6
    assert "clean comes out as" in said
    assert "degraded comes out as" in said


def test_a_picture_that_was_changed_in_the_shard_is_noticed(made: Path, tmp_path: Path, replay: Replay) -> None:
    copy = copied(made, tmp_path)

    def brighten(name: str, data: bytes) -> bytes:
        if name != "in/0-p00000.clean.png":
            return data
        samples = decode(data, "png").samples.copy()
        samples[0, 0, 0] ^= 4
        return png(samples)

    rewrite(copy / "clean-0.tar", brighten)
    code, said, _ = replay("--shard", copy / "clean-0.tar", "--key", "in/0-p00000")
    assert code == 6
    assert "the shard's clean.png is not the picture that was recorded: 1 of 1728 samples differ, by at most 4" in said


def test_a_picture_that_can_t_be_read_in_the_shard_is_noticed(made: Path, tmp_path: Path, replay: Replay) -> None:
    copy = copied(made, tmp_path)
    rewrite(copy / "clean-0.tar", lambda name, data: b"" if name == "in/0-p00000.clean.png" else data)
    code, said, _ = replay("--shard", copy / "clean-0.tar", "--key", "in/0-p00000")
    assert code == 6
    assert "the shard's clean.png can't be read" in said


def test_the_version_that_made_the_pair_is_named_beside_a_difference(
    made: Path, tmp_path: Path, replay: Replay
) -> None:
    copy = copied(made, tmp_path)
    manifest = json.loads((copy / "_ledger" / ".run.json").read_text())
    (copy / "_ledger" / ".run.json").write_text(json.dumps(manifest | {"version": "0.0.7"}))
    words = ("--shard", copy / "clean-0.tar", "--key", "in/0-p00000")
    assert "0.0.7" not in replay(*words)[1]
    change_json(copy / "clean-0.tar", "in/0-p00000", lambda details: details["parameters"]["cut"].update(top=0, left=0))
    code, said, _ = replay(*words)
    assert code == 6
    assert "made by version 0.0.7, this is" in said


# ---------------------------------------------------------------- refused


def test_an_unknown_key_gets_the_nearest_one(made: Path, replay: Replay) -> None:
    code, _, err = replay("--shard", made, "--key", "in/0-p0001")
    assert code == 5
    assert "did you mean 'in/0-p00001'?" in err


def forget_digests(details: dict[str, Any]) -> None:
    del details["digests"]


def digests_of_before(details: dict[str, Any]) -> None:
    details["digests"] = dict.fromkeys(details["digests"], "0" * 32)


def name_an_unknown_operator(details: dict[str, Any]) -> None:
    details["parameters"]["degradation"].append({"gauss_noise": {}})


def forget_a_parameter(details: dict[str, Any]) -> None:
    del details["parameters"]["degradation"][1]["gaussian_noise"]["sigma"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forget_digests, "wrote no digests of this kind"),
        (digests_of_before, "wrote no digests of this kind"),
        (name_an_unknown_operator, "no degradation is called 'gauss_noise'"),
        (forget_a_parameter, "its parameters are not understood: KeyError: 'sigma'"),
        (dict.clear, "'replay' takes the pairs of 'degrade'"),
    ],
)
def test_a_pair_that_can_t_be_made_again_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, made: Path, tmp_path: Path, replay: Replay
) -> None:
    copy = copied(made, tmp_path)
    change_json(copy / "clean-0.tar", "in/0-p00000", change)
    code, _, err = replay("--shard", copy / "clean-0.tar", "--key", "in/0-p00000")
    assert code == 5
    assert message in err
    assert "in/0-p00000" in err


def test_clean_pictures_are_no_pairs(clean: Path, replay: Replay) -> None:
    code, _, err = replay("--shard", clean / "loose", "--sample", 1)
    assert code == 5
    assert "has no JSON; 'replay' takes the pairs of 'degrade'" in err


def test_pairs_made_again_never_overwrite_the_shard(made: Path, replay: Replay) -> None:
    code, _, err = replay("--shard", made / "clean-0.tar", "--sample", 1, "--output", made)
    assert code == 5
    assert "not over it" in err


@pytest.mark.parametrize(
    "words", [(), ("--key", "a", "--sample", "3"), ("--key", "a", "--smaple", "3"), ("--sample", "-1")]
)
def test_a_key_or_a_sample_is_needed(words: tuple[str, ...], made: Path, replay: Replay) -> None:
    assert replay("--shard", made, *words)[0] == 2


def test_pairs_with_a_margin_have_two_halves_of_one_size_and_are_made_again(
    tmp_path: Path, photo: NDArray[np.uint8], replay: Replay
) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "a.png").write_bytes(png(photo[:128, :160]))
    pairs = tmp_path / "pairs"
    degrade("--input", tmp_path / "clean", "--output", pairs, "--recipe", "motion-patches", "--patches_per_image", 5)
    shard = next(pairs.glob("*.tar"))
    for record in read_tar(str(shard)):
        sizes = {decode(record.fields[f"{half}.png"], f"{half}.png").samples.shape for half in ("clean", "degraded")}
        assert sizes == {(30, 30, 3)}
    code, lines = replay("--shard", shard, "--sample", 5)[:2]
    assert code == 0, lines
