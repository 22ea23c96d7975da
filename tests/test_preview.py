"""`conservator preview`: contact sheets with the drawn parameters, and the drawing that makes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.degradation import OPERATORS
from models.degradation.short_form import short_form
from models.recipes import Pair, load_recipe, shipped_recipes
from pipelines import preview as preview_verb
from pipelines.main import main
from pipelines.preview import PHOTOGRAPH, degraded_cell
from transforms.contact_sheet import (
    CARD,
    INK,
    LARGEST_SIDE,
    PAPER,
    SOFT_INK,
    Cell,
    Layout,
    Section,
    draw_sheet,
    kernel_inset,
    motion_inset,
    plain,
    shown,
    wrapped,
)
from transforms.value_range import to_u8

SMALLER = """
kind: degradation
description: half as large
source: a test
channels: gray
patches: {size: 32}
degradation: {resize: {scale: 1/2}}
"""


@pytest.fixture
def picture(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo[60:188, 150:310]).save(path)
    return path


def preview(*words: object) -> int:
    return main(["preview", *map(str, words)])


def sheet_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"))


def holds(sheet: NDArray[np.uint8], part: NDArray[np.uint8]) -> bool:
    """Whether a picture stands somewhere on a sheet, pixel for pixel."""
    height, width = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (1, 8), axis=(0, 1))[..., 0, :]
    begins = (windows == part[0, :8].T).all(axis=(2, 3))
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], part)
        for top, left in np.argwhere(begins).tolist()
    )


def enlarged(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return np.kron(pixels, np.ones((factor, factor, 1), np.uint8))


# ---------------------------------------------------------------- the verb


def test_the_clean_patch_stands_first_and_the_degraded_ones_beside_it(tmp_path: Path, picture: Path) -> None:
    sheets = []
    for columns, rows in ((1, 1), (3, 1), (3, 2)):
        words = (
            "--recipe",
            "gaussian-25",
            "--input",
            picture,
            "--patch_size",
            128,
            "--columns",
            columns,
            "--rows",
            rows,
        )
        assert preview(*words, "--output", tmp_path / "sheet.png") == 0
        sheets.append(sheet_of(tmp_path / "sheet.png"))
    assert len({sheet.shape[1] for sheet in sheets[1:]}) == 1
    assert sheets[2].shape[0] > sheets[1].shape[0]
    with Image.open(picture) as clean:
        crops = [np.asarray(clean)[:, left : left + 128] for left in range(33)]
    (crop,) = [each for each in crops if holds(sheets[0], enlarged(each, 2))]
    assert all(holds(sheet, enlarged(crop, 2)) for sheet in sheets)


def test_the_same_seed_gives_the_same_sheet(tmp_path: Path, picture: Path) -> None:
    made = []
    for number, seed in enumerate((4, 4, 5)):
        words = ("--recipe", "noise-zoo", "--input", picture, "--columns", 2, "--rows", 1, "--seed", seed)
        assert preview(*words, "--output", tmp_path / f"{number}.png") == 0
        made.append((tmp_path / f"{number}.png").read_bytes())
    assert made[0] == made[1] != made[2]


def test_a_smaller_result_is_shown_as_large_as_the_clean_patch(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    (tmp_path / "smaller.yaml").write_text(SMALLER)
    pair = load_recipe(str(tmp_path / "smaller.yaml")).pair(photo, key="a", patch=0, seed=0)
    assert isinstance(pair, Pair)
    cell = degraded_cell(pair, 1)
    assert cell.title == "degraded 1 · 16 x 16"
    expected = enlarged(np.repeat(to_u8(pair.degraded), 3, axis=2), 16)
    assert np.array_equal(np.asarray(shown(cell, 256)), expected)


def test_whole_pictures_are_shown_whole(tmp_path: Path, picture: Path) -> None:
    words = ("--recipe", "noise-zoo", "--input", picture, "--whole", "--columns", 1, "--rows", 1)
    assert preview(*words, "--output", tmp_path / "sheet.png") == 0
    with Image.open(picture) as clean:
        assert holds(sheet_of(tmp_path / "sheet.png"), np.asarray(clean))


def test_a_sheet_needs_no_picture_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview("--recipe", "noise-zoo,text-deblur", "--output", tmp_path / "sheet.webp") == 0
    assert re.search(r"sheet\.webp: 2 recipes, \d+x\d+$", capsys.readouterr().out.strip())


def test_the_sheet_of_all_recipes_fits_into_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview("--recipe", "all", "--output", tmp_path / "all.png") == 0
    assert f"{len(shipped_recipes())} recipes" in capsys.readouterr().out
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.width < 1600
    assert (tmp_path / "all.png").stat().st_size < 24_000 * len(shipped_recipes())  # 700 kB when there were 29


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_shipped_recipe_degrades_the_example(recipe: str, tmp_path: Path) -> None:
    assert preview("--recipe", recipe, "--columns", 3, "--rows", 1, "--output", tmp_path / "sheet.png") == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--recipe", "noise-zo", "--output", "s.png"), 5, "did you mean 'noise-zoo'?"),
        (("--recipe", "noise-zoo", "--output", "s.gif"), 5, ".png, .webp or .jpg"),
        (("--recipe", "noise-zoo", "--output", "s.png", "--input", "absent.png"), 5, "absent.png"),
        (("--recipe", "noise-zoo", "--output", "s.png", "--patch_size", "161"), 5, "hold no patch of 161x161"),
        (("--recipe", "noise-zoo", "--output", "s.png", "--columns", "-1"), 2, "--columns -1"),
        (("--recipe", "noise-zoo", "--output", "s.png", "--columns", "400"), 2, "from 0 to 24"),
        (
            ("--recipe", "noise-zoo", "--output", "s.png", "--columns", "24", "--rows", "24"),
            5,
            "24 columns x 24 rows are 576",
        ),
        (("--recipe", "all", "--output", "s.png", "--columns", "4", "--rows", "9"), 5, "name fewer recipes"),
        (("--recipe", "train-dncnn-gray-25", "--output", "s.png"), 5, "a recipe for training"),
        (("--recipe", "noise-zoo"), 2, "--output"),
        (("--recipe", "noise-zoo", "--output", "s.png", "--colums", "3"), 2, "did you mean --columns?"),
    ],
)
def test_what_can_t_be_drawn_is_said(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert preview(*(words if "--input" in words else (*words, "--input", picture))) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("s.*"))


def test_something_that_is_no_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ("--recipe", "noise-zoo", "--output", tmp_path / "s.png", "--input", tmp_path / "broken.png")
    assert preview(*words) == 5
    assert "not_an_image" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "side"), [("noise-zoo", 1), ("bsrgan", 1), ("bsrgan", 3)])
def test_a_picture_too_small_to_cut_is_named_with_its_size(
    recipe: str, side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was called flat, and --patch_size was the remedy."""
    Image.new("RGB", (side, side)).save(tmp_path / "dot.png")
    assert preview("--recipe", recipe, "--output", tmp_path / "s.png", "--input", tmp_path / "dot.png") == 5
    complaint = capsys.readouterr().err
    assert f"{side}x{side} pixels" in complaint
    assert "choose a larger picture" in complaint
    assert "--patch_size" not in complaint


def test_a_sheet_too_long_for_its_format_is_refused_in_words(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(preview_verb.LONGEST_SIDES, "WEBP", 200)
    words = ("--recipe", "noise-zoo", "--input", picture, "--columns", 1, "--rows", 1)
    assert preview(*words, "--output", tmp_path / "s.webp") == 5
    assert "WEBP holds 200 a side" in capsys.readouterr().err
    assert preview(*words, "--output", tmp_path / "s.png") == 0


def test_a_single_pixel_is_shown_whole(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    words = ("--recipe", "noise-zoo", "--output", tmp_path / "s.png", "--input", tmp_path / "dot.png", "--whole")
    assert preview(*words, "--columns", 2, "--rows", 1) == 0


def test_small_patches_of_the_example_show_the_whole_face(photo: NDArray[np.uint8]) -> None:
    for size in (32, 64, 192, 256, 400):
        assert PHOTOGRAPH.cut(photo, size).shape == (size, size, 3)
    assert np.abs(PHOTOGRAPH.cut(photo, 64).mean() - PHOTOGRAPH.cut(photo, 192).mean()) < 1
    assert np.array_equal(PHOTOGRAPH.cut(photo, 192), photo[0:192, 130:322])


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("gaussian_noise", {"sigma": 0.0980392, "across_channels": "independent", "stream": "0f" * 16}, "sigma 0.098"),
        ("gaussian_noise", {"sigma": 0.1, "across_channels": "shared"}, "sigma 0.1, across_channels shared"),
        ("jpeg", {"quality": 71, "extra": True}, "quality 71, extra yes"),
        ("round_to_8bit", {}, ""),
        ("file_blur", {"kernel": "k05VTVBZAQB2AHsnZGVzY3InOiAn", "taps": [[0.1, 0.2]], "size": [3, 3]}, "size [3 3]"),
        (
            "composed_blur",
            {"members": [{"gaussian_blur": {"sigma": 2.0}}, {"defocus_blur": {"radius_px": 1.25}}]},
            "gaussian_blur sigma 2, defocus_blur radius_px 1.25",
        ),
    ],
)
def test_captions_hold_what_was_drawn(name: str, parameters: dict[str, Any], words: str) -> None:
    assert name in OPERATORS
    assert short_form([{name: parameters}]) == ((name, words),)


def test_lines_stay_inside_the_cell() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(13)
    text = "across_channels independent, anisotropic_gaussian_blur_with_a_name_that_no_line_holds 0.1234"
    lines = list(wrapped([("gaussian_noise", INK), (text, SOFT_INK)], 150, 13))
    assert lines[0][0] == ("gaussian_noise", INK)
    assert all(font.getlength(" ".join(word for word, _ in line)) <= 151 for line in lines)
    assert "".join(word for line in lines for word, _ in line) == ("gaussian_noise" + text).replace(" ", "")


def test_letters_that_the_font_lacks_are_spelt() -> None:
    assert plain("3×3 – σ 0.1") == "3x3 - sigma 0.1"
    assert plain("写真").isascii()


# ---------------------------------------------------------------- the drawing


def test_small_pictures_grow_by_whole_factors_and_large_ones_shrink(photo: NDArray[np.uint8]) -> None:
    assert np.array_equal(np.asarray(shown(Cell(photo[:40, :40], ""), 256)), enlarged(photo[:40, :40], 6))
    assert shown(Cell(photo[:300, :200], ""), 256).size == (200, 300)
    wide = np.concatenate([photo, photo], axis=1)
    assert shown(Cell(wide, ""), 256).size == (LARGEST_SIDE, LARGEST_SIDE // 2)


def test_float_and_grey_pictures_are_shown_clipped() -> None:
    values = np.array([[[-0.5], [0.0], [1.0], [1.5]]], np.float32)
    assert np.asarray(shown(Cell(values, ""), 4)).tolist() == [[[0] * 3, [0] * 3, [255] * 3, [255] * 3]]


def test_an_inset_covers_the_lower_right_corner_only(photo: NDArray[np.uint8]) -> None:
    plain_cell = np.asarray(shown(Cell(photo[:128, :128], ""), 256)).astype(int)
    kernel = kernel_inset(np.eye(5, dtype=np.float32) / 5)
    mask = np.full((128, 128, 1), 255, np.uint8)
    marked = np.asarray(shown(Cell(photo[:128, :128], "", insets=(kernel, mask)), 256))
    rows, columns = np.nonzero((marked != plain_cell).any(axis=2))
    assert rows.min() > 160
    assert columns.min() > 100
    many = shown(Cell(photo[:128, :128], "", insets=(kernel,) * 40), 256)
    assert np.array_equal(np.asarray(many)[:200], plain_cell[:200])


def test_a_kernel_is_scaled_to_white_and_no_motion_is_white() -> None:
    assert kernel_inset(np.array([[0, 0.25], [0.5, 0]], np.float32))[..., 0].tolist() == [[0, 128], [255, 0]]
    assert kernel_inset(np.zeros((3, 3), np.float32)).max() == 0
    motion = np.zeros((2, 1, 3), np.float32)
    motion[0, 0, 1], motion[0, 0, 2] = 4, -4
    still, right, left = motion_inset(motion)[0].tolist()
    assert still == [255, 255, 255]
    assert right == [255, 0, 0]
    assert left[0] < 10
    assert min(left[1:]) > 240


def test_sections_stand_side_by_side_where_there_is_room(photo: NDArray[np.uint8]) -> None:
    cells = tuple(Cell(photo[:64, :64], f"picture {n}", (("gaussian_noise", "sigma 0.1"),)) for n in range(4))
    section = Section("title", "seed 0", ("a note",), cells)
    single = draw_sheet([section], Layout(columns=2, side=128))
    narrow = draw_sheet([section] * 3, Layout(columns=2, side=128, widest=single.width))
    wide = draw_sheet([section] * 3, Layout(columns=2, side=128, widest=2 * single.width))
    assert narrow.width == single.width < wide.width < 2 * single.width
    assert single.height < wide.height < narrow.height
    corner = wide.getpixel((wide.width - 30, wide.height - 30))
    assert corner == PAPER  # the third section stands on the left


def test_long_captions_are_cut_at_a_step(photo: NDArray[np.uint8]) -> None:
    def height(steps: int, most: int) -> int:
        lines = (("gaussian_noise", "sigma 0.1"),) * steps
        return draw_sheet([Section("", "", (), (Cell(photo[:64, :64], "", lines),))], Layout(1, 256, 0, most)).height

    assert height(3, 0) < height(9, 0)
    assert height(9, 5) == height(30, 5) < height(9, 0)
    assert height(4, 5) == height(4, 0)


def test_cards_are_white_on_a_light_page(photo: NDArray[np.uint8]) -> None:
    sheet = np.asarray(draw_sheet([Section("t", "", (), (Cell(photo[:64, :64], "clean"),))], Layout(1, 128)))
    assert tuple(sheet[0, 0]) == PAPER
    assert (sheet == CARD).all(axis=2).mean() > 0.05
