"""The command line as its users meet it: flags, exit codes, messages, and verbs that follow one another."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from pair_kit import png, write_tar
from PIL import Image
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.zoo import MODELS
from pipelines.main import VERBS, main
from pipelines.options import PreviewOptions, ReplayOptions, RetryOptions, RunOptions, TrainOptions
from transforms.formats.tar import TarWriter, read_tar
from transforms.pictures import decode, from_float, to_float

INLINE = ("--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner", "--quiet")
PHOTO: NDArray[np.uint8] = photographs.astronaut()[100:148, 60:116]
Array = NDArray[Any]


def crops(count: int) -> dict[str, Array]:
    photo = photographs.astronaut()
    return {f"{n:02d}": photo[30 * n : 30 * n + 48, 20 * n : 20 * n + 56] for n in range(count)}


def noisy(pixels: Array, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).normal(0, 12, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_files(tmp_path / "pictures", {f"{key}.png": png(crop) for key, crop in crops(3).items()})


def run(verb: str, *words: object) -> int:
    return main([verb, *map(str, words), *INLINE])


def summary_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "report" / "summary.json").read_text())
    return found


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    ledgers = [json.loads(path.read_text()) for path in sorted(output.glob("_ledger/[!.]*.json"))]
    return {row["key"]: row["metrics"] for ledger in ledgers for row in ledger["records"]}


def dead_letters_of(output: Path) -> dict[str, str]:
    ledgers = [json.loads(path.read_text()) for path in sorted(output.glob("_ledger/[!.]*.json"))]
    return {letter["key"]: letter["reason"] for ledger in ledgers for letter in ledger["dead_letters"]}


def files_of(output: Path) -> dict[str, bytes]:
    """Everything but reports and ledgers, which hold times."""
    found = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(("_ledger", "report"))}


# ---------------------------------------------------------------- 2: the command line can't be understood


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restor"], "did you mean 'restore'?"),
        (["frobnicate"], "see 'conservator --help'"),
        (["restore", "--input", "a", "--output", "b", "--modle", "m"], "did you mean --model?"),
        (["restore", "--input", "a", "--output", "b", "--model", "m", "--out-put-format", "png"], "--output_format"),
        (["restore", "--input", "a", "--output", "b"], "--model"),
        (["degrade", "--output", "b", "--recipe", "gaussian-25"], "--input"),
        (["degrade", "--input", "a", "--output", "b", "--recipe", "r", "--seed", "many"], "many"),
        (["degrade", "--input", "a", "--output", "b", "--recipe", "r", "--seed"], "--seed"),
        (["restore", "--input", "a", "b", "--output", "c", "--model", "m"], "'b'"),
        (["restore", "--input", "a", "--output", "b", "--model", "m", "--provider", "tpu"], "tpu"),
        (["restore", "--input", "a", "--output", "b", "--model", "m", "--jbo_name", "x"], "did you mean --job_name?"),
        (["evaluate", "--input", "a", "--output", "b", "--refrence", "c"], "did you mean --reference?"),
        (["retry", "--output", "b", "--max_faild_ratio", "1"], "did you mean --max_failed_ratio?"),
        (["zoo", "--runner", "DataflowRunner"], "--runner"),
        (["export", "--checkpoint", "a", "--output", "b", "--project", "p"], "--project"),
    ],
)
def test_usage_errors_name_the_word_and_the_remedy(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.startswith("conservator: ")
    assert len(complaint.splitlines()) == 1


DEGRADE = "degrade --input a --output b --recipe r"
RESTORE = "restore --input a --output b --model m"
TRAIN = "train --recipe r --data a --output b"
NUMBERS_OUTSIDE = [
    (DEGRADE, "--patches_per_image -3", "a whole number of at least 0"),  # left good shards empty, with exit code 0
    (DEGRADE, "--patch_size -3", "a whole number of at least 0"),
    (DEGRADE, "--shard_mb -3", "a whole number of at least 0"),
    (DEGRADE, "--shards -1", "a whole number of at least 0"),
    (DEGRADE, "--variants 0", "a whole number of at least 1"),
    (DEGRADE, "--validation_share 1.0", "a number of at least 0 and below 1"),
    (DEGRADE, "--png_level 12", "a whole number from 1 to 9"),
    (DEGRADE, "--jpeg_quality 0", "a whole number from 1 to 100"),
    (DEGRADE, "--io_threads 0", "a whole number from 1 to 1024"),
    (RESTORE, "--num_local_workers -1", "a whole number from 0 to 1024"),
    (RESTORE, "--io_threads 0", "a whole number from 1 to 1024"),
    (RESTORE, "--max_pixels 0", "a whole number of at least 1"),
    (RESTORE, "--read_ahead_mb -5", "a whole number of at least 1"),
    (RESTORE, "--pictures_per_unit 0", "a whole number of at least 1"),
    (RESTORE, "--max_failed_ratio 1.5", "a number from 0 to 1"),
    (RESTORE, "--max_failed_ratio nan", "a number from 0 to 1"),
    (RESTORE, "--tile -1", "a whole number of at least 0"),
    (RESTORE, "--batch 0", "a whole number of at least 1"),
    (RESTORE, "--session_threads -1", "a whole number from 0 to 1024"),
    ("retry --output b", "--num_local_workers -2", "a whole number from 0 to 1024"),
    (TRAIN, "--threads -1", "a whole number from 0 to 1024"),
    (TRAIN, "--loaders -1", "a whole number from 0 to 1024"),
    (TRAIN, "--steps -1", "a whole number of at least 0"),
    ("replay --shard a", "--sample -1", "a whole number of at least 0"),
    ("preview --recipe r --output b.png", "--columns 400", "a whole number from 0 to 24"),
    ("preview --recipe r --output b.png", "--rows -1", "a whole number from 0 to 24"),
]


@pytest.mark.parametrize(("words", "number", "expected"), NUMBERS_OUTSIDE)
def test_numbers_outside_their_range_are_usage_errors_and_not_found_by_the_workers(
    words: str, number: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), *number.split()]) == 2
    assert capsys.readouterr().err == f"conservator: {number}: expected {expected}\n"


def test_every_number_but_a_seed_has_a_range_that_holds_its_default() -> None:
    for options_class in (*RunOptions.__subclasses__(), RetryOptions, TrainOptions, ReplayOptions, PreviewOptions):
        for option in dataclasses.fields(options_class):
            if option.type in ("int", "float") and option.name != "seed":
                assert option.metadata["bounds"].complaint(option.default) is None, option.name


def test_the_help_names_the_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["degrade", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "PNG compression: low is quick, high is small (from 1 to 9; default: 1)" in said
    assert "share of the records became dead letters (from 0 to 1)" in said


INTERRUPTED = """
import sys
import pipelines.main as program
def stopped(words):
    raise KeyboardInterrupt
program.VERBS[sys.argv[1]] = stopped
program.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("verb", "kept"), [("degrade", "units"), ("preview", ""), ("replay", ""), ("train", "--resume")]
)
def test_an_interrupt_promises_only_what_the_verb_keeps(verb: str, kept: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, verb], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr.startswith("conservator: interrupted")
    assert ("finished units are kept" in done.stderr) == (kept == "units")
    assert ("--resume" in done.stderr) == (kept == "--resume")


def test_without_a_verb_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    usage = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == usage
    assert all(f"conservator {verb} " in usage for verb in VERBS)
    assert main(["--version"]) == 0


def test_help_comes_without_beam_torch_or_onnxruntime() -> None:
    program = """
import sys
from pipelines.main import VERBS, main
for verb in VERBS:
    try:
        main([verb, "--help"])
    except SystemExit as leaving:
        assert leaving.code == 0, verb
print(sorted({"apache_beam", "torch", "onnxruntime", "pyarrow"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
    for flag in ("--recipe", "--model", "--reference", "--max_failed_ratio", "--checkpoint", "--device", "--name"):
        assert flag in done.stdout


# ---------------------------------------------------------------- 5: refused before the start


@pytest.fixture
def broken_files(tmp_path: Path) -> Path:
    recipe = b"kind: degradation\ndescription: x\ndegradation: {gaussian_nose: {sigma: 0.1}}\n"
    return write_files(tmp_path / "broken", {"bad.yaml": recipe, "bad.onnx": b"no model", "file": b""})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("restore --input nowhere/*.tar --output {out} --model {model}", "nowhere"),
        ("restore --input {broken} --output {out} --model {model}", "no tar shard and no picture"),
        ("restore --input @nowhere.txt --output {out} --model {model}", "nowhere.txt"),
        ("restore --input {pictures} --output {out} --model {broken}/bad.onnx", "bad.onnx"),
        ("restore --input {pictures} --output {out} --model nowhere.onnx", "nowhere.onnx"),
        ("restore --input {pictures} --output {out} --model denoise5-grey-25", "did you mean 'denoise5-gray-25'?"),
        ("restore --input {pictures} --output {out} --model {model} --metrics psnt", "psn"),
        ("restore --input {pictures} --output {broken}/file/out --model {model}", "cannot write"),
        ("restore --input {pictures} --output zz9://out --model {model}", "zz9"),
        ("restore --input {pictures} --output {out} --model {model} --runner NoSuchRunner", "NoSuchRunner"),
        ("degrade --input {pictures} --output {out} --recipe gausian-25", "gaussian-25"),
        ("degrade --input {pictures} --output {out} --recipe {broken}/bad.yaml", "gaussian_noise"),
        ("degrade --input {pictures} --output {out} --recipe {broken}/none.yaml", "none.yaml"),
        ("degrade --input {pictures} --output {out} --recipe gaussian-25 --whole --patch_size 8", "--patch_size"),
        ("degrade --input {pictures} --output {out} --recipe bsrgan --patch_size 250", "choose 248 or 252"),
        ("evaluate --input {pictures} --output {out} --metrics sim[rgb,u8]", "ssim"),
        ("retry --output {out}", "no run in"),
        ("zoo --name denoise5-gray", "denoise5-gray-25"),
    ],
)
def test_what_cannot_work_is_refused_before_the_start(
    words: str,
    message: str,
    pictures: Path,
    broken_files: Path,
    negative_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"pictures": pictures, "broken": broken_files, "model": negative_model, "out": tmp_path / "out"}
    assert main([word.format(**places) for word in words.split()]) == 5
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.startswith("conservator: ")
    assert not (tmp_path / "out").exists()


def test_a_patch_size_that_the_recipe_can_t_take_leaves_an_earlier_run_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers found out, record by record: dead letters stood where good pairs had been."""
    source, output = write_files(tmp_path / "in", {"a.png": png(photographs.astronaut()[:80, :80])}), tmp_path / "out"
    words = (
        "--input",
        source,
        "--output",
        output,
        "--recipe",
        "sr-x2",
        "--max_failed_ratio",
        0,
        "--patches_per_image",
        1,
    )
    assert run("degrade", *words, "--patch_size", 64) == 0
    before = files_of(output)
    for size in (63, -3, 1):
        assert run("degrade", *words, "--patch_size", size) == (2 if size < 0 else 5)
        assert f"--patch_size {size}" in capsys.readouterr().err
    assert files_of(output) == before


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU provider")
def test_a_provider_that_is_not_there_is_refused_unless_allowed(
    pictures: Path, negative_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--input", pictures, "--output", tmp_path / "out", "--model", negative_model, "--provider", "cuda")
    assert run("restore", *words) == 5
    assert "--allow_cpu_fallback" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("restore", *words, "--allow_cpu_fallback") == 0


SAME_PLACES = {
    "the same words": ("{here}/a", "{here}/a"),
    "a slash at the end": ("{here}/a", "{here}/a/"),
    "another spelling": ("{here}/a", "{here}/b/../a"),
    "a link": ("{here}/a", "{here}/link"),
    "a pattern": ("{here}/a/*.png", "{here}/a"),  # each result would have overwritten its source
    "a pattern of shards": ("{here}/shards/*.tar", "{here}/shards"),
    "a list": ("@{here}/list.txt", "{here}/a"),
    "input inside output": ("{here}/a", "{here}"),
    "output inside input": ("{here}/a", "{here}/a/restored"),
}


@pytest.mark.parametrize("name", SAME_PLACES)
def test_results_never_overwrite_what_they_came_from(
    name: str, negative_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "a", {"x.png": png(PHOTO)})
    write_files(tmp_path / "b", {})
    write_tar(tmp_path / "shards" / "0.tar", {"x.png": png(PHOTO)})
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/x.png\n")
    before = files_of(tmp_path)
    source, output = (place.format(here=tmp_path) for place in SAME_PLACES[name])
    assert run("restore", "--input", source, "--output", output, "--model", negative_model) == 5
    assert "choose" in capsys.readouterr().err
    assert files_of(tmp_path) == before


# ---------------------------------------------------------------- 0, 1 and 3


def test_trouble_with_the_storage_is_exit_code_1(
    pictures: Path, negative_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "00.png").mkdir(parents=True)  # the place of a result is taken by a folder
    assert run("restore", "--input", pictures, "--output", tmp_path / "out", "--model", negative_model) == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("conservator: ")
    assert "00.png" in complaint
    (tmp_path / "out" / "00.png").rmdir()
    assert run("restore", "--input", pictures, "--output", tmp_path / "out", "--model", negative_model) == 0


def test_flags_in_kebab_case(pictures: Path, tmp_path: Path) -> None:
    words = ("--input", pictures, "--recipe", "gaussian-25")
    assert run("degrade", *words, "--output", tmp_path / "snake", "--output_format", "folder", "--png_level=9") == 0
    assert run("degrade", *words, "-o", tmp_path / "kebab", "--output-format", "folder", "--png-level=9") == 0
    assert files_of(tmp_path / "kebab") == files_of(tmp_path / "snake")
    assert "00.degraded.png" in files_of(tmp_path / "kebab")


def test_flags_of_beam_pass_through_in_both_spellings(pictures: Path, tmp_path: Path) -> None:
    words = ("--input", pictures, "--recipe", "gaussian-25", "--output", tmp_path / "out")
    assert (
        run("degrade", *words, "--job_name", "a", "--job-name", "b", "--no_auth", "--experiments=shuffle_mode=x") == 0
    )


def test_a_dry_run_without_a_runner_does_nothing(
    pictures: Path, negative_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(pictures), "--output", str(tmp_path / "out"), "--model", str(negative_model), "--dry_run"]
    assert main(["restore", *words]) == 0
    said = capsys.readouterr()
    assert "1 units to do" in said.err
    assert "nothing was done" in said.out
    assert not (tmp_path / "out").exists()


def test_memory_is_a_place_like_any_other(negative_model: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for key, crop in crops(3).items():
        memory.pipe_file(f"/{tmp_path.name}/in/{key}.png", png(crop))
    place = f"memory://{tmp_path.name}"
    assert run("degrade", "--input", f"{place}/in", "--output", f"{place}/pairs", "--recipe", "gaussian-25") == 0
    assert run("restore", "--input", f"{place}/pairs", "--output", f"{place}/out", "--model", negative_model) == 0
    restored = {record.key for record in read_tar(f"{place}/out/files-first.tar")}
    assert restored <= set(crops(3))
    assert restored
    assert memory.exists(f"/{tmp_path.name}/out/report/index.html")


# ---------------------------------------------------------------- zoo


def test_zoo_lists_every_model_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    listed = capsys.readouterr().out
    for name in MODELS:
        assert name in listed
        assert main(["zoo", "--name", name]) == 0
        card = json.loads(capsys.readouterr().out)
        assert card["name"] == name
        assert card["channels"] in (1, 3)


# ---------------------------------------------------------------- degrade, then restore


def restored_pictures(output: Path) -> dict[str, Array]:
    """KEY -> samples, of tars and of loose files."""
    found: dict[str, Array] = {}
    for path in output.glob("*.tar"):
        for record in read_tar(str(path)):
            found[record.key] = decode(record.fields["restored.png"], "restored.png").samples
    for path in output.glob("*.restored.png"):
        found[path.name.partition(".")[0]] = decode(path.read_bytes(), "restored.png").samples
    return found


@pytest.mark.parametrize("stored", ["png", "npy"])
def test_restore_reads_what_degrade_writes_as_tars_and_as_files(
    pictures: Path, negative_model: Path, tmp_path: Path, stored: str
) -> None:
    degrading = ("--input", pictures, "--recipe", "gaussian-25", "--seed", 3, "--degraded_format", stored)
    assert run("degrade", *degrading, "--output", tmp_path / "tars") == 0
    assert run("degrade", *degrading, "--output", tmp_path / "files", "--output_format", "folder") == 0
    for kind in ("tars", "files"):
        output = tmp_path / f"{kind} restored"
        assert run("restore", "--input", tmp_path / kind, "--output", output, "--model", negative_model) == 0
        restored = restored_pictures(output)
        assert set(restored) == set(crops(3))
        for key, clean in crops(3).items():
            name = f"{key}.degraded.{stored}"
            degraded = from_float(to_float(decode((tmp_path / "files" / name).read_bytes(), name).samples), np.uint8)
            assert np.abs(restored[key].astype(int) - (255 - degraded)).max() <= (
                stored == "npy"
            )  # a tie may round either way
            expected = peak_signal_noise_ratio(clean, degraded, data_range=255)
            assert rows_of(output)[key]["input psnr[rgb,u8]"] == pytest.approx(expected, abs=1e-9)
        assert summary_of(output)["counts"]["records_out"] == 3
    assert rows_of(tmp_path / "tars restored") == rows_of(tmp_path / "files restored")


def test_loose_pairs_are_restored_beside_and_never_over_their_reference(negative_model: Path, tmp_path: Path) -> None:
    """KEY.degraded.png + KEY.clean.png came back as KEY.degraded.png, or as KEY.clean.png: the last file read won."""
    pair = {
        "d/k.degraded.png": png(noisy(PHOTO)),
        "d/k.clean.png": png(PHOTO),
        "d/k.json": b'{"parameters": {"sigma": 9}}',
    }
    source = write_files(tmp_path / "pairs", pair)
    assert run("restore", "--input", source, "--output", tmp_path / "out", "--model", negative_model) == 0
    assert set(files_of(tmp_path / "out")) == {"d/k.restored.png", "d/k.json"}
    described = json.loads((tmp_path / "out" / "d" / "k.json").read_text())
    assert described["degradation"] == {"sigma": 9}
    restored = decode((tmp_path / "out" / "d" / "k.restored.png").read_bytes(), "x.png").samples
    np.testing.assert_array_equal(restored, 255 - noisy(PHOTO))


def test_the_order_of_a_listing_changes_nothing(negative_model: Path, tmp_path: Path) -> None:
    files = {
        f"{folder}/{key}.png": png(noisy(crop, n)) for folder in "ab" for n, (key, crop) in enumerate(crops(8).items())
    }
    source = write_files(tmp_path / "in", files)
    model = ("--model", negative_model, "--pictures_per_unit", 3)
    assert run("restore", "--input", source, "--output", tmp_path / "folder", *model) == 0
    names = sorted(files)
    for seed in (1, 2):
        random.Random(seed).shuffle(names)
        (tmp_path / "list.txt").write_text("\n".join(str(source / name) for name in names))
        output = tmp_path / f"list {seed}"
        assert run("restore", "--input", f"@{tmp_path}/list.txt", "--output", output, *model) == 0
        assert files_of(output) == files_of(tmp_path / "folder")


def test_files_of_one_name_in_several_folders_all_come_back(negative_model: Path, tmp_path: Path) -> None:
    """A camera starts anew at IMG_0001 in each folder; a pattern took them all for one doubled record."""
    source = write_files(tmp_path / "in", {f"DCIM/{n}/IMG_0001.png": png(noisy(PHOTO, n)) for n in (100, 101)})
    words = ("--input", f"{source}/DCIM/*/*.png", "--output", tmp_path / "out", "--model", negative_model)
    assert run("restore", *words) == 0
    assert {name for name in files_of(tmp_path / "out") if name.endswith("png")} == {
        "100/IMG_0001.png",
        "101/IMG_0001.png",
    }


# ---------------------------------------------------------------- evaluate

METRICS = "psnr[rgb,u8],ssim[rgb,u8],psnr[rgb,border=4,u8]"


def expected_figures(restored: Array, clean: Array) -> dict[str, float]:
    """scikit-image's."""
    options: dict[str, Any] = {
        "data_range": 255,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    inner = (slice(4, -4), slice(4, -4))
    return {
        "psnr[rgb,u8]": peak_signal_noise_ratio(clean, restored, data_range=255),
        "ssim[rgb,u8]": structural_similarity(clean, restored, channel_axis=2, **options),
        "psnr[rgb,border=4,u8]": peak_signal_noise_ratio(clean[inner], restored[inner], data_range=255),
    }


def assert_as_scikit_image(output: Path, restored: Mapping[str, Array]) -> None:
    found = rows_of(output)
    assert set(found) == set(restored)
    for key, pixels in restored.items():
        for name, value in expected_figures(pixels, crops(4)[Path(key).name]).items():
            assert found[key][name] == pytest.approx(value, abs=1e-6), (key, name)
    mean = np.mean(
        [expected_figures(pixels, crops(4)[Path(key).name])["psnr[rgb,u8]"] for key, pixels in restored.items()]
    )
    assert summary_of(output)["metrics"]["psnr[rgb,u8]"]["mean"] == pytest.approx(mean, abs=1e-6)


@pytest.fixture
def restored() -> dict[str, Array]:
    return {key: noisy(crop, int(key)) for key, crop in crops(4).items()}


def test_evaluate_folders_with_other_extensions(tmp_path: Path, restored: dict[str, Array]) -> None:
    results = write_files(tmp_path / "restored", {f"deep/{key}.png": png(pixels) for key, pixels in restored.items()})
    references: dict[str, bytes] = {}
    for key, crop in crops(4).items():
        buffer = io.BytesIO()
        Image.fromarray(crop).save(buffer, "TIFF")
        references[f"deep/{key}.tif"] = buffer.getvalue()
    write_files(tmp_path / "clean", references)
    words = ("--input", results, "--reference", tmp_path / "clean", "--output", tmp_path / "out", "--metrics", METRICS)
    assert run("evaluate", *words) == 0
    assert_as_scikit_image(tmp_path / "out", {f"deep/{key}": pixels for key, pixels in restored.items()})
    assert not files_of(tmp_path / "out")  # figures only


def test_evaluate_tars_by_key_and_not_by_position(tmp_path: Path, restored: dict[str, Array]) -> None:
    results = write_tar(
        tmp_path / "restored.tar", {f"{key}.restored.png": png(pixels) for key, pixels in restored.items()}
    )
    backwards = {f"{key}.clean.png": png(crop) for key, crop in reversed(crops(4).items())}
    references = write_tar(tmp_path / "clean.tar", backwards)
    words = ("--input", results, "--reference", references, "--output", tmp_path / "out", "--metrics", METRICS)
    assert run("evaluate", *words) == 0
    assert_as_scikit_image(tmp_path / "out", restored)


def test_evaluate_a_restored_run_against_the_pairs_it_came_from(
    pictures: Path, negative_model: Path, tmp_path: Path
) -> None:
    pairs, restored = tmp_path / "pairs", tmp_path / "restored"
    assert run("degrade", "--input", pictures, "--recipe", "gaussian-25", "--output", pairs) == 0
    assert run("restore", "--input", pairs, "--output", restored, "--model", negative_model) == 0
    assert run("evaluate", "--input", restored, "--reference", pairs, "--output", tmp_path / "out") == 0
    expected = {
        key: {name: row[name] for name in ("psnr[rgb,u8]", "ssim[rgb,u8]")} for key, row in rows_of(restored).items()
    }
    assert rows_of(tmp_path / "out") == expected


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_unpaired_pictures_are_dead_letters_both_ways(tmp_path: Path, restored: dict[str, Array], kind: str) -> None:
    results = {f"{key}.png": png(pixels) for key, pixels in restored.items() if key != "01"}
    references = {f"{key}.png": png(crop) for key, crop in crops(4).items() if key != "02"}
    write = (lambda name, files: write_tar(tmp_path / f"{name}.tar", files)) if kind == "tar" else (
        lambda name, files: write_files(tmp_path / name, files)
    )  # fmt: skip
    words = ("--input", write("a", results), "--reference", write("b", references), "--output", tmp_path / "out")
    assert run("evaluate", *words, "--metrics", METRICS) == 3
    assert dead_letters_of(tmp_path / "out") == {"01": "unpaired", "02": "unpaired"}
    assert_as_scikit_image(tmp_path / "out", {key: restored[key] for key in ("00", "03")})


def test_evaluate_refuses_what_it_cannot_pair(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_tar(tmp_path / "a.tar", {"00.png": png(PHOTO)})
    others = write_tar(tmp_path / "b" / "0.tar", {"00.png": png(PHOTO)}), write_tar(tmp_path / "b" / "1.tar", {})
    packed = tmp_path / "a.tar.gz"
    import gzip

    packed.write_bytes(gzip.compress(shard.read_bytes()))
    for source, reference, message in (
        (shard, pictures, "must both be tars"),
        (pictures, shard, "must both be tars"),
        (shard, others[0].parent, "no reference shard called 'a'"),
        (shard, packed, "a.tar.gz"),
    ):
        assert run("evaluate", "--input", source, "--reference", reference, "--output", tmp_path / "out") == 5
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_trouble_in_a_reference_shard_is_reported_and_no_reason_to_stop(
    tmp_path: Path, restored: dict[str, Array]
) -> None:
    results = write_tar(tmp_path / "a.tar", {f"{key}.png": png(pixels) for key, pixels in restored.items()})
    with TarWriter(tmp_path / "b.tar") as shard:
        shard.write("README", b"about")
        for key in ("00", "01", "01", "02", "03"):
            shard.write(f"{key}.png", png(crops(4)[key]))
    whole = (tmp_path / "b.tar").read_bytes()
    words = ("--input", results, "--reference", tmp_path / "b.tar", "--output", tmp_path / "out", "--metrics", METRICS)
    assert run("evaluate", *words) == 3
    assert dead_letters_of(tmp_path / "out") == {"README": "bad_key", "01": "duplicate"}
    assert_as_scikit_image(tmp_path / "out", {key: restored[key] for key in ("00", "02", "03")})
    (tmp_path / "b.tar").write_bytes(whole[: whole.rindex(b"03.png") + 700])
    assert run("evaluate", *words) == 3
    assert dead_letters_of(tmp_path / "out").items() >= {"b.tar": "bad_shard"}.items()
    assert_as_scikit_image(tmp_path / "out", {key: restored[key] for key in ("00", "02")})


def keys_in(shard: Path) -> list[str]:
    return [record.key for record in read_tar(str(shard))]


def test_names_with_dots_and_twins_survive_a_tar_and_a_retry(tmp_path: Path) -> None:
    """A key ends at the first dot: scans called scan.2019.01.png once shared one record, and a retry emptied the shard."""
    good = png(PHOTO)
    files = {"scan.2019.01.png": good, "scan.2019.02.png": good, "a.png": good, "a.bmp": b"BMbroken"}
    source, output = write_files(tmp_path / "in", files), tmp_path / "out"
    words = ("--recipe", "gaussian-25", "--pictures_per_unit", 100)
    assert run("degrade", "--input", source, "--output", output, *words) == 3
    (shard,) = output.glob("*.tar")
    assert keys_in(shard) == ["a_png", "scan_2019_01", "scan_2019_02"]
    letters = output / "_failed" / shard.name
    with TarWriter(tmp_path / "repaired.tar") as repaired:
        for record in read_tar(str(letters)):
            repaired.write(f"{record.key}.failure.json", record.fields["failure.json"])
            buffer = io.BytesIO()
            Image.fromarray(PHOTO).save(buffer, "BMP")
            repaired.write(f"{record.key}.bmp", buffer.getvalue())
    letters.write_bytes((tmp_path / "repaired.tar").read_bytes())
    assert run("retry", "--output", output) == 0
    assert keys_in(shard) == ["a_bmp", "a_png", "scan_2019_01", "scan_2019_02"]


def test_several_pairs_of_one_whole_picture_have_keys_of_their_own(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", {"a.png": png(PHOTO)})
    words = (
        "degrade",
        "--input",
        source,
        "--recipe",
        "gaussian-25",
        "--patches_per_image",
        3,
        "--output",
        tmp_path / "out",
    )
    assert run(*words) == 0
    (shard,) = (tmp_path / "out").glob("*.tar")
    assert keys_in(shard) == ["a-p00000", "a-p00001", "a-p00002"]


def test_shards_with_the_same_keys_do_not_overwrite_each_other_as_files(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_tar(tmp_path / "in" / f"{name}.tar", {"0.png": png(PHOTO), "1.png": png(PHOTO[::-1])})
    words = ("degrade", "--input", tmp_path / "in", "--recipe", "gaussian-25", "--output_format", "folder")
    assert run(*words, "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.clean.png"))) == 4
    assert (tmp_path / "out" / "x" / "0.degraded.png").exists()


def test_a_result_does_not_outlive_its_picture(negative_model: Path, tmp_path: Path) -> None:
    """An input that is replaced by a broken file must not leave its old result behind as if it were this run's."""
    source, output = write_files(tmp_path / "in", {"a.png": png(PHOTO), "b.png": png(PHOTO)}), tmp_path / "out"
    words = ("restore", "--input", source, "--model", negative_model, "--output", output)
    assert run(*words) == 0
    assert (output / "a.png").exists()
    (source / "a.png").write_bytes(b"broken")
    assert run(*words) == 3
    assert not (output / "a.png").exists()
    assert not (output / "a.json").exists()
    assert (output / "b.png").exists()


def test_the_same_files_under_other_names_are_other_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_files(tmp_path / "in", {"sub/a.png": png(PHOTO)})
    words = ("degrade", "--recipe", "gaussian-25", "--output", tmp_path / "out", "--output_format", "folder")
    assert run(*words, "--input", source / "sub") == 0
    assert run(*words, "--input", source) == 0
    assert (tmp_path / "out" / "sub" / "a.clean.png").exists()


def test_degraded_folder_as_reference_means_its_clean_pictures(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", {"a.png": png(PHOTO)})
    pairs, words = tmp_path / "pairs", ("--recipe", "gaussian-25", "--output_format", "folder")
    assert run("degrade", "--input", source, *words, "--output", pairs) == 0
    assert run("evaluate", "--input", source, "--reference", pairs, "--output", tmp_path / "report") == 0
    assert summary_of(tmp_path / "report")["metrics"]["psnr[rgb,u8]"]["infinite"] == 1


def test_memory_is_refused_where_workers_could_not_see_it(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["degrade", "--input", str(pictures), "--recipe", "gaussian-25", "--output", "memory://lost"]
    assert main([*words, "--num_local_workers", "1"]) == 5
    assert "inside one process" in capsys.readouterr().err


# ---------------------------------------------------------------- what degrade says of places without a pair


def test_a_run_that_makes_no_pair_says_so_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_files(tmp_path / "in", {f"{key}.png": png(crop) for key, crop in crops(4).items()})
    words = ("--recipe", "gaussian-25", "--patch_size", 64, "--patches_per_image", 2)
    assert run("degrade", "--input", source, "--output", tmp_path / "out", *words) == 0
    said = capsys.readouterr().out
    assert "rejected: 4 too_small\n" in said
    assert "NO PAIR WAS MADE: give a smaller --patch_size, or --whole" in said


def test_rejections_are_told_beside_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"small.png": png(PHOTO[:20, :20]), "large.png": png(PHOTO)}
    source = write_files(tmp_path / "in", files)
    words = ("degrade", "--input", source, "--output", tmp_path / "out", "--recipe", "gaussian-25", "--patch_size", 40)
    for _ in range(2):  # also where all units were done before
        assert run(*words) == 0
        said = capsys.readouterr().out
        assert "1 records written" in said
        assert "rejected: 1 too_small\n" in said
        assert "NO PAIR" not in said
    assert run(*words, "--patch_size", 16) == 0
    assert "rejected" not in capsys.readouterr().out


# ---------------------------------------------------------------- retry from elsewhere


RECIPE = """
kind: degradation
description: noise after a blur
source: none
patches: {size: 24, per_image: 2}
degradation:
  sequence:
    - file_blur: {kernels: kernel.npy}
    - gaussian_noise: {sigma: {uniform: [1e-2, 25/255]}}
"""


def repair(letters: Path, ending: str, data: bytes) -> None:
    """Puts good bytes in the place of those that were broken."""
    fixed = letters.with_suffix(".fixed")
    with TarWriter(fixed) as repaired:
        for record in read_tar(str(letters)):
            for name, old in record.fields.items():
                repaired.write(f"{record.key}.{name}", data if name == ending else old)
    fixed.rename(letters)


@pytest.mark.parametrize("trouble", ["elsewhere", "gone", "changed"])
def test_retry_needs_neither_the_working_folder_nor_the_recipe_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    home, output, whole = tmp_path / "home", tmp_path / "out", tmp_path / "whole"
    write_files(
        home, {"in/a.png": png(PHOTO), "in/b.png": b"broken", "good/a.png": png(PHOTO), "good/b.png": png(PHOTO)}
    )
    (home / "my.yaml").write_text(RECIPE)
    np.save(home / "kernel.npy", np.full((3, 3), 1 / 9))
    monkeypatch.chdir(home)
    words = ("--recipe", "my.yaml", "--pictures_per_unit", 100)
    assert run("degrade", "--input", "in", "--output", output, *words) == 3
    assert run("degrade", "--input", "good", "--output", whole, *words) == 0
    repair(*output.glob("_failed/*.tar"), "png", png(PHOTO))
    if trouble == "gone":
        (home / "my.yaml").unlink()
    elif trouble == "changed":
        (home / "my.yaml").write_text(RECIPE.replace("25/255", "50/255"))
    else:
        write_files(tmp_path / "other", {})
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
    manifest = (output / "_ledger" / ".run.json").read_text()
    assert run("retry", "--output", output) == 0
    assert files_of(output) == files_of(whole)
    assert (output / "_ledger" / ".run.json").read_text() == manifest  # whoever replays finds the input as before


def test_retry_of_a_restoration_finds_a_model_that_was_named_by_a_relative_path(
    negative_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_files(tmp_path / "in", {"a.png": png(PHOTO), "b.png": b"broken"}), tmp_path / "out"
    monkeypatch.chdir(negative_model.parent)
    assert run("restore", "--input", source, "--model", negative_model.name, "--output", output) == 3
    repair(*output.glob("_failed/*.tar"), "png", png(PHOTO))
    monkeypatch.chdir(tmp_path)
    assert run("retry", "--output", output) == 0
    assert (output / "a.png").read_bytes() == (output / "b.png").read_bytes()
