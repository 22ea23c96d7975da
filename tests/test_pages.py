"""Pages for the text network: the same from the same seed, on any machine, and they say what stands on them."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("reportlab")
pytest.importorskip("pypdfium2")

from models.pages import LAYOUTS, PageStyle, draw_page
from models.pages.fonts import _DEBIAN, FAMILIES, IN_THE_WHEEL, MONOSPACED, font_files
from models.pages.page import _posed
from models.pages.prose import Prose
from models.training_data import load_pictures
from pipelines.pages import _families
from transforms.errors import ConfigurationError
from transforms.formats.tar import read_tar
from transforms.randomness import generator

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def reading() -> ModuleType:
    """`benchmarks/reading.py`."""
    spec = importlib.util.spec_from_file_location("reading", ROOT / "tests" / "benchmarks" / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def straight(layout: str, family: str = "dejavu-serif") -> PageStyle:
    return PageStyle((family,), (layout,), rotation_deg=0, tilt_deg=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_page_is_a_colour_picture_of_dark_text_on_light_paper(layout: str) -> None:
    page = draw_page(PageStyle(IN_THE_WHEEL, (layout,)), 5, 0)
    height, width, channels = page.pixels.shape
    assert page.pixels.dtype == np.uint8
    assert (channels, height % 2, width % 2) == (3, 0, 0)
    assert page.parameters["layout"] == layout
    assert np.median(page.pixels) > 180
    assert 0.01 < (page.pixels.min(axis=2) < 140).mean() < 0.5
    long_side = max(page.parameters["size_pt"])
    assert max(height, width) == pytest.approx(long_side / 72 * page.parameters["dpi"], abs=2)


def test_a_page_follows_from_seed_and_number_in_another_process_too() -> None:
    style = PageStyle(IN_THE_WHEEL)
    here = [draw_page(style, 7, number) for number in (3, 0)]
    code = (
        "import hashlib; from models.pages import *; from models.pages.fonts import IN_THE_WHEEL;"
        "page = draw_page(PageStyle(IN_THE_WHEEL), 7, 3); print(hashlib.sha256(page.pixels.tobytes()).hexdigest())"
    )
    import hashlib

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert there.stdout.strip() == hashlib.sha256(here[0].pixels.tobytes()).hexdigest()
    assert here[0].text != here[1].text
    assert draw_page(style, 8, 3).text != here[0].text


def test_the_machines_fonts_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every font of the PDF is embedded, so PDFium substitutes none of its own or the system's."""
    import pypdfium2

    from models.pages import page as module

    documents = []
    rasterise = module._rasterise
    monkeypatch.setattr(
        module, "_rasterise", lambda document, dpi: documents.append(document) or rasterise(document, dpi)
    )
    for layout in LAYOUTS:
        draw_page(straight(layout), 2, 1)
    for document in documents:
        fonts = document.count(b"/Type /Font\n") + document.count(b"/Subtype /TrueType")
        assert document.count(b"/FontFile2") == document.count(b"/Subtype /TrueType") > 0, fonts
        assert pypdfium2.PdfDocument(io.BytesIO(document))[0].get_size()[0] > 0


def test_the_text_is_what_was_set() -> None:
    """A paragraph's text, as PDFium reads it out of the PDF, is the prose that went in."""
    page = draw_page(straight("paragraph"), 11, 4)
    prose = Prose(generator(11, "page", patch=4, step=0)).paragraph(3)
    assert " ".join(page.text.split()) == prose


def test_tesseract_reads_sharp_slips_almost_without_error(reading: ModuleType) -> None:
    if reading.TESSERACT is None:
        pytest.skip("no tesseract here: apt-get install tesseract-ocr")
    pages = [draw_page(PageStyle(("dejavu-serif", "dejavu-sans", "stix"), ("paragraph",)), 21, n) for n in range(6)]
    errors = [reading.character_error(reading.words_of(page.text), reading.read_block(page.pixels)) for page in pages]
    assert np.mean(errors) < 0.02
    other = reading.words_of(pages[1].text)
    assert reading.character_error(other, reading.read_block(pages[0].pixels)) > 0.5


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("same", "same", 0),
        ("ab", "ba", 2),
    ],
)
def test_edits_are_levenshteins(reading: ModuleType, first: str, second: str, distance: int) -> None:
    assert reading.edits(first, second) == distance


def test_the_character_error_is_clipped_and_refuses_an_empty_truth(reading: ModuleType) -> None:
    assert reading.character_error("ab", "xxxxxxxx") == 1
    assert reading.character_error("abcd", "abxd") == 0.25
    with pytest.raises(ValueError, match="empty text"):
        reading.character_error("", "a")


def test_words_fall_as_zipf_and_mandelbrot_say() -> None:
    words = (ROOT / "models" / "pages" / "words.txt").read_text().split()
    assert len(words) == len(set(words)) == 3000
    drawn = Prose(generator(1, "words")).words(60_000)
    shares = 1 / (np.arange(len(words)) + 3.7)
    expected = 60_000 * shares / shares.sum()
    for place in (0, 1, 10):
        assert drawn.count(words[place]) == pytest.approx(expected[place], abs=5 * np.sqrt(expected[place]))


def test_a_page_turns_by_the_angle_that_it_says() -> None:
    """A horizontal line through the centre, turned in the plane: its slope is the tangent."""
    picture = np.full((401, 401, 3), 255, np.uint8)
    picture[199:202] = 0
    turned = 255 - np.asarray(_posed(Image.fromarray(picture), (3.0, 0.0, 0.0)), np.float64)[..., 0]
    heights = (turned * np.arange(401)[:, None]).sum(axis=0) / turned.sum(axis=0)
    slope = np.polyfit(np.arange(100, 300), heights[100:300], 1)[0]
    assert abs(slope) == pytest.approx(np.tan(np.radians(3)), rel=0.01)


def test_a_tilted_page_narrows_towards_the_far_side() -> None:
    picture = np.full((400, 400, 3), 255, np.uint8)
    picture[:, 99:101] = picture[:, 299:301] = 0
    tilted = np.asarray(_posed(Image.fromarray(picture), (0.0, 8.0, 0.0)))[..., 0]
    widths = [np.ptp(np.flatnonzero(tilted[row] < 128)) for row in (40, 360)]
    assert abs(int(widths[0]) - int(widths[1])) > 5


def test_pages_are_a_shard_to_learn_from(tmp_path: Path) -> None:
    shard = tmp_path / "pages.tar"
    command = [
        sys.executable,
        "-m",
        "pipelines.pages",
        "--count",
        "2",
        "--seed",
        "3",
        "--output",
        str(shard),
        "--layouts",
    ]
    for _ in range(2):
        subprocess.run([*command, "paragraph"], cwd=ROOT, check=True)
        first = shard.read_bytes()
    assert shard.read_bytes() == first
    records = list(read_tar(str(shard)))
    assert [sorted(record.fields) for record in records] == [["json", "png", "txt"]] * 2
    pages = [draw_page(PageStyle(IN_THE_WHEEL, ("paragraph",)), 3, number) for number in range(2)]
    assert [record.fields["txt"].decode() for record in records] == [f"{page.text}\n" for page in pages]
    assert json.loads(records[1].fields["json"]) == pages[1].parameters
    pictures = load_pictures([str(shard)], 3)
    assert all(np.array_equal(picture.clean, page.pixels) for picture, page in zip(pictures, pages, strict=True))
    assert not list(tmp_path.glob("_tmp/*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": ("comic",)}, "no font family 'comic'"),
        ({"families": ()}, "at least one font family"),
        ({"layouts": ("poster",)}, "no page layout 'poster'"),
        ({"dpi": (150, 120)}, "30 to 600 dpi"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PageStyle(**{"families": IN_THE_WHEEL, **settings})  # type: ignore[arg-type]


def test_missing_font_files_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("models.pages.fonts._DEBIAN", tmp_path)
    with pytest.raises(ConfigurationError, match="apt-get install fonts-liberation"):
        font_files("liberation-serif")
    assert all(font_files(family) for family in IN_THE_WHEEL)
    assert set(IN_THE_WHEEL) < set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_every_character_that_stands_on_pages(family: str) -> None:
    font = pytest.importorskip("fontTools.ttLib", reason="it reads fonts; comes with matplotlib")
    if family not in IN_THE_WHEEL and not (_DEBIAN / FAMILIES[family].folder).is_dir():
        pytest.skip(f"apt-get install {FAMILIES[family].source}")
    prose = Prose(generator(1, "characters"))
    kinds = (prose.sentence, prose.formula, prose.code, prose.number, prose.name)
    written = {character for kind in kinds for _ in range(400) for character in kind()} | {"•"}
    assert len(written) > 80
    for file in font_files(family):
        with font.TTFont(file, lazy=True) as opened:
            glyphs = opened.getBestCmap()
            widths = {opened["hmtx"][glyphs[ord(letter)]][0] for letter in "iW"}
        assert not {character for character in written if ord(character) not in glyphs}, file.name
        assert (len(widths) == 1) == (family in MONOSPACED), file.name


def test_families_are_left_out_by_name() -> None:
    held_out = ("liberation-serif", "liberation-narrow")
    assert _families("all", ",".join(held_out)) == tuple(name for name in FAMILIES if name not in held_out)
    assert _families("stix,dejavu-sans", "") == ("stix", "dejavu-sans")
    with pytest.raises(ConfigurationError, match="no font family 'arial' to leave out"):
        _families("all", "arial")


def test_the_command_refuses_a_count_of_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.pages", "--count", "0", "--output", str(tmp_path / "p.tar")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "count of pages must be at least 1, not 0" in done.stderr
