"""The report: one truth in three files, nothing from outside, nothing executable from the data, memory that stays."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transforms import metrics_table
from transforms.charts import draw_histogram
from transforms.errors import ConservatorError, Reason
from transforms.formats.tar import TarWriter
from transforms.ledger import samples_name
from transforms.report import (
    REASON_TEXTS,
    REJECTION_TEXTS,
    ReportOptions,
    format_chance,
    format_figure,
    format_rate,
    format_seconds,
    format_size,
    write_report,
)
from transforms.samples import SampleKeeper
from transforms.series import Series
from transforms.storage import OutputStore
from transforms.summary import summarise
from transforms.work import Sample

PSNR, SSIM = "psnr[rgb,u8]", "ssim[rgb,u8]"
ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}'
JOB = {
    "verb": "restore",
    "command": "conservator restore --input in --output out",
    "date": "2026-01-02T03:04:05+00:00",
    "output": "out",
    "metrics": [PSNR, SSIM],
    "restorer": {"name": "denoise5-color-25", "per_channel_count": [{"name": "a"}, {"name": "b"}]},
    "wall_s": 250.0,
}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, text of table rows, all visible text."""

    VOID = frozenset({"meta", "img", "input", "link", "br"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"elements left open: {self._open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += text
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(text)

    @property
    def visible(self) -> str:
        return " ".join(" ".join(text) for tag, text in self.texts.items() if tag not in ("script", "style"))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, *start: str) -> list[str]:
        return next(cells for cells in self.tidy_rows() if cells[: len(start)] == list(start))

    def tidy_rows(self) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.rows]


def record(key: str, index: int, metrics: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    row = {"key": key, "index": index, "width": 640, "height": 480, "channels": 3, "bits": 8, "notes": []}
    return row | {"metrics": metrics or {}} | changes


def measured(key: str, index: int, psnr_db: Any, before_db: Any) -> dict[str, Any]:
    ssim = 0.5 if isinstance(psnr_db, str) else psnr_db / 50
    return record(key, index, {PSNR: psnr_db, f"input {PSNR}": before_db, SSIM: ssim, f"input {SSIM}": 0.25})


def ledger(unit: str, records: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    pixels = 307_200 * len(records)
    plain = {
        "unit": unit,
        "counts": {"records_out": len(records), "pixels_out": pixels, "bytes_in": 3_000_000, "bytes_out": 2_000_000},
        "timings_s": {"wall": 10.0, "decode": 0.5, "operate": 8.0},
        "records": records,
        "dead_letters": [],
        "samples": None,
    }
    return plain | changes


def webp(level: int, width: int = 32, height: int = 24) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(encoded, "WEBP", lossless=True)
    return encoded.getvalue()


def keep_samples(store: OutputStore, unit: str, crops: dict[str, bytes]) -> None:
    with store.scratch() as folder:
        with TarWriter(folder / "samples.tar") as archive:
            for name, data in crops.items():
                archive.write(name, data)
        store.publish(folder / "samples.tar", samples_name(unit))


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(str(tmp_path / "out"))


def report(
    store: OutputStore, run: list[dict[str, Any]], job: dict[str, Any] | None = None, **options: Any
) -> tuple[Page, dict[str, Any]]:
    write_report(store, summarise(run), JOB if job is None else job, iter(run), ReportOptions(**options))
    page, document = store.read("report/index.html"), store.read("report/summary.json")
    assert page is not None
    assert document is not None
    return Page(page.decode()), json.loads(document)


def table(store: OutputStore) -> Any:
    data = store.read("report/metrics.parquet")
    assert data is not None
    return pq.read_table(io.BytesIO(data))


def full_run() -> list[dict[str, Any]]:
    letters = [
        {"key": f"bad{n}", "index": 90 + n, "reason": "empty", "detail": "zero bytes", "stage": "decode"}
        for n in range(3)
    ]
    letters.append(
        {"key": "pdf", "index": 99, "reason": "not_an_image", "detail": "starts with %PDF", "stage": "decode"}
    )
    first = [measured(f"a{n}", n, 26.0 + n, 20.0 + n / 4) for n in range(8)]
    first[2]["notes"] = ["ICC profile left out"]
    second = [measured("b0", 0, 19.5, 20.0), measured("b1", 1, "inf", 30.0), record("unmeasured", 2, channels=1)]
    return [ledger("00000", first), ledger("00001", second, dead_letters=letters)]


def test_page_json_and_table_tell_the_same_figures(store: OutputStore) -> None:
    page, document = report(store, full_run())
    rows = table(store)
    for name in (PSNR, f"input {PSNR}", SSIM, f"input {SSIM}"):
        figures = document["metrics"][name]
        column = [value for value in rows[name].to_pylist() if value is not None]
        finite = [value for value in column if math.isfinite(value)]
        assert figures["mean"] == pytest.approx(math.fsum(finite) / len(finite), rel=1e-15)
        assert (figures["count"], figures["infinite"]) == (len(finite), len(column) - len(finite))
        assert (figures["min"], figures["max"]) == (min(finite), max(finite))
    shown = [row for row in page.tidy_rows() if row[0] in ("restored", "degraded input", "gain")]
    expected = [
        document[group][name]
        for base in (PSNR, SSIM)
        for group, name in (("metrics", base), ("metrics", f"input {base}"), ("gains", base))
    ]
    assert len(shown) == len(expected) == 6
    for cells, figures in zip(shown, expected, strict=True):
        digits = 2 if figures["unit"] == "dB" else 4
        assert float(cells[1].split("±")[0].replace("−", "-")) == pytest.approx(figures["mean"], abs=0.51 * 10**-digits)
        for cell, name in zip(cells[2:8], ("std", "min", "p05", "median", "p95", "max"), strict=True):
            assert float(cell.replace("−", "-")) == pytest.approx(figures[name], abs=0.51 * 10**-digits)
        assert [int(cell) for cell in cells[8:]] == [figures["count"], figures["infinite"], figures["undefined"]]


def test_the_headline_says_what_was_gained(store: OutputStore) -> None:
    page, document = report(store, full_run())
    title = " ".join("".join(page.texts["h1"] + page.texts["em"]).split())
    assert document["gains"][PSNR]["mean"] == pytest.approx(sum([6 + 0.75 * n for n in range(8)] + [-0.5]) / 9)
    assert "11 pictures restored" in title
    assert "+7.61 dB" in title
    text = " ".join(page.visible.split())
    assert "of them got worse" in text
    assert document["gains"][PSNR]["below_zero"] == 1
    megapixels = 11 * 640 * 480 / 1e6
    rates = {"mpix_per_s": megapixels / 250, "mpix_per_worker_s": megapixels / 20, "megapixels_out": megapixels}
    rates |= {"records_per_s": 11 / 250, "records_per_worker_s": 11 / 20, "bytes_per_record": 4_000_000 / 11}
    assert document["throughput"] == {"wall_s": 250.0, **rates}
    assert "4 min 10 s" in text


def test_the_rate_counts_only_what_this_run_made(store: OutputStore) -> None:
    _, document = report(store, full_run(), JOB | {"wall_s": 2.0, "pixels_run": 500_000})
    assert document["throughput"]["mpix_per_s"] == 0.25
    assert document["throughput"]["records_per_s"] is None  # how many of them this run made is not said
    _, document = report(store, full_run(), {"verb": "restore"})
    assert document["throughput"]["mpix_per_s"] is None


def test_the_table_has_a_row_for_every_record(store: OutputStore) -> None:
    report(store, full_run())
    rows = table(store).to_pylist()
    assert [(row["unit"], row["key"], row["index"]) for row in rows][-2:] == [
        ("00001", "b1", 1),
        ("00001", "unmeasured", 2),
    ]
    assert len(rows) == 11
    assert rows[2]["notes"] == ["ICC profile left out"]
    assert rows[9][PSNR] == math.inf
    assert rows[10][PSNR] is None
    assert (rows[10]["width"], rows[10]["height"], rows[10]["channels"], rows[10]["bits"]) == (640, 480, 1, 8)


def test_failures_are_counted_by_reason_and_listed_up_to_the_limit(store: OutputStore) -> None:
    page, document = report(store, full_run(), dead_letter_rows=2)
    assert document["dead_letters"]["by_reason"] == {"empty": 3, "not_an_image": 1}
    assert page.row("empty")[:3] == ["empty", REASON_TEXTS["empty"], "3"]
    assert page.row("not_an_image")[2] == "1"
    assert [letter["key"] for letter in document["dead_letters"]["first"]] == ["bad0", "bad1"]
    assert page.row("bad0") == ["bad0", "empty", "zero bytes", "decode", "00001"]
    assert "First 2 of 4 in detail" in page.visible


def test_every_reason_is_explained() -> None:
    assert set(REASON_TEXTS) == set(Reason)


def gallery_run(store: OutputStore) -> list[dict[str, Any]]:
    """Two units; each kept the crops of some records. The level of a crop says whose it is."""
    run = [
        ledger(f"{u:05d}", [measured(f"p{u}{n}", n, 20.0 + 2 * n + u, 15.0) for n in range(10)], samples="x")
        for u in range(2)
    ]
    for u in range(2):
        crops = {}
        for n in (0, 1, 2, 7, 8, 9):
            for shift, role in enumerate(("degraded", "restored", "clean")):
                crops[f"p{u}{n}.{role}.webp"] = webp(100 * u + 10 * n + shift)
        keep_samples(store, run[u]["unit"], crops)
    return run


def shown_exhibits(page: Page) -> list[str]:
    return [image["alt"].partition(",")[0] for image in page.all("img") if image["class"] == "right"]


def test_the_galleries_show_the_worst_and_the_best_of_the_whole_run(store: OutputStore) -> None:
    page, _ = report(store, gallery_run(store), gallery_size=3)
    assert shown_exhibits(page) == ["p00", "p10", "p01", "p19", "p09", "p18"]
    levels = {}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
        levels[image["alt"]] = np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0]
    assert len(levels) == 18
    assert (levels["p10, degraded"], levels["p10, restored"], levels["p10, reference"]) == (100, 101, 102)
    assert (levels["p09, degraded"], levels["p09, restored"], levels["p09, reference"]) == (90, 91, 92)


def test_each_slider_can_be_reached_and_is_named(store: OutputStore) -> None:
    page, _ = report(store, gallery_run(store), gallery_size=2)
    sliders = [one for one in page.all("input") if one["type"] == "range"]
    assert sliders[0]["aria-label"] == "Divider between degraded and restored, p00"
    assert len(sliders) == len(page.all("button")) == 4
    assert all(image["alt"] for image in page.all("img"))
    assert all(chart["aria-label"] for chart in page.all("svg"))


def test_no_picture_stands_in_both_galleries(store: OutputStore) -> None:
    page, _ = report(store, gallery_run(store)[:1], gallery_size=6)
    assert sorted(shown_exhibits(page)) == ["p00", "p01", "p02", "p07", "p08", "p09"]


def test_other_pictures_than_the_extremes_are_never_read(store: OutputStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = [ledger(f"{u:05d}", [measured(f"p{u}", 0, 20.0 + u, 15.0)], samples="x") for u in range(60)]
    for one in run:
        keep_samples(store, one["unit"], {f"p{int(one['unit'])}.restored.webp": webp(1)})
    asked: list[str] = []
    original = OutputStore.read
    monkeypatch.setattr(OutputStore, "read", lambda self, name: asked.append(name) or original(self, name))
    page, _ = report(store, run, gallery_size=2)
    assert shown_exhibits(page) == ["p0", "p1", "p59", "p58"]
    assert samples_name("00030") not in asked


@pytest.mark.parametrize("damage", [b"", b"no tar at all", None])
def test_lost_samples_cost_the_gallery_only(store: OutputStore, damage: bytes | None) -> None:
    run = gallery_run(store)
    if damage is not None:
        store.write(samples_name("00000"), damage)
    else:
        keep_samples(store, "00000", {"p00.restored.webp": b"RIFF but no picture", "p00.degraded.webp": b""})
    page, document = report(store, run, gallery_size=3)
    assert {exhibit[:2] for exhibit in shown_exhibits(page)} == {"p1"}
    assert document["records"] == 20


def test_a_run_without_references_shows_before_and_after(store: OutputStore) -> None:
    run = [ledger("00000", [record(f"p{n}", n) for n in range(4)], samples="x")]
    keep_samples(store, "00000", {f"p{n}.{role}.webp": webp(n) for n in range(4) for role in ("degraded", "restored")})
    page, document = report(store, run)
    assert shown_exhibits(page) == ["p0", "p1", "p2", "p3"]
    assert document["metrics"] == {}
    assert document["charts"][0]["title"] == "picture size"
    assert "quality was not measured" in page.visible
    assert "Show reference" not in page.visible
    assert table(store).num_rows == 4


def test_an_evaluation_compares_with_the_reference(store: OutputStore) -> None:
    run = [ledger("00000", [record("p0", 0, {PSNR: 30.0})], samples="x")]
    keep_samples(store, "00000", {"p0.restored.webp": webp(1), "p0.clean.webp": webp(2)})
    page, _ = report(store, run, {"verb": "evaluate"})
    assert [image["alt"] for image in page.all("img")] == ["p0, reference", "p0, restored"]
    assert "1 picture evaluated" in " ".join("".join(page.texts["h1"]).split())
    assert "30.00" in page.visible


PAIRS_JOB: dict[str, Any] = {
    "verb": "degrade",
    "recipe": {"name": "noise-zoo", "description": "Noise of all kinds", "patches": {"size": 32}},
    "seed": 3,
    "wall_s": 10.0,
    "expected_draws": [
        {
            "operator": "gaussian_noise",
            "paths": ["sequence 1"],
            "share": 1.0,
            "parameters": [
                {
                    "name": "sigma",
                    "meaning": "standard deviation",
                    "expected": [0.5, 0.5],
                    "edges": [0.0, 0.1, 0.2],
                    "logarithmic": False,
                    "whole": False,
                },
                {
                    "name": "boundary",
                    "meaning": "beyond the border",
                    "expected": [0.75, 0.25],
                    "options": ["reflect", "zero"],
                    "logarithmic": False,
                    "whole": False,
                },
            ],
        }
    ],
}


def pairs_run(store: OutputStore, units: int = 3, **tallies: int) -> list[dict[str, Any]]:
    """Units of four pairs each: clean crops of 32 x 24, degraded ones of 8 x 6, captions."""
    counted = {"pairs": 4, "0": 4, "0.sigma.0": 2, "0.sigma.1": 2, "0.boundary.0": 3, "0.boundary.1": 1} | tallies
    run = []
    for u in range(units):
        keys = [f"u{u}p{n}" for n in range(4)]
        counts = {"records_in": 2, "records_out": 4, "bytes_out": 40_000, "rejected_flat": 3, "rejected_blurred": 1}
        records = [record(key, n, {PSNR: 20.0 + n}) for n, key in enumerate(keys)]
        run.append(ledger(f"{u:05d}", records, samples="x", counts=counts, tallies=counted))
        crops = {}
        for n, key in enumerate(keys):
            crops |= {f"{key}.degraded.webp": webp(n, 8, 6), f"{key}.clean.webp": webp(100 + n)}
            crops[f"{key}.caption.json"] = json.dumps([["gaussian_noise", f"sigma 0.{n}"]]).encode()
        keep_samples(store, run[u]["unit"], crops)
    return run


def test_pairs_are_sampled_from_all_units_in_turn(store: OutputStore) -> None:
    page, document = report(store, pairs_run(store), PAIRS_JOB)
    assert shown_exhibits(page) == [f"u{u}p{n}" for n in range(4) for u in range(3)]
    assert "Worst results" not in page.visible
    assert document["ranking"] == PSNR
    assert " ".join("".join(page.texts["h1"]).split()) == "12 pairs made"


def test_a_small_degraded_picture_is_shown_as_large_as_its_clean_one(store: OutputStore) -> None:
    page, _ = report(store, pairs_run(store, units=1), PAIRS_JOB)
    stages = [div for div in page.all("div") if div.get("class", "").startswith("stage")]
    assert {stage["class"] for stage in stages} == {"stage enlarged"}
    assert stages[0]["style"] == "aspect-ratio: 32 / 24; width: min(100%, 192px)"
    images = {image["alt"]: image for image in page.all("img")}
    assert (images["u0p0, degraded"]["width"], images["u0p0, clean"]["width"]) == ("8", "32")
    assert "image-rendering: pixelated" in page.source


def test_under_each_pair_stands_what_was_drawn_for_it(store: OutputStore) -> None:
    page, _ = report(store, pairs_run(store, units=1), PAIRS_JOB)
    captions = re.findall(r"<li><b>(\w+)</b> ([^<]+)</li>", page.source)
    assert captions == [("gaussian_noise", f"sigma 0.{n}") for n in range(4)]


def test_places_that_were_rejected_are_counted_by_reason(store: OutputStore) -> None:
    page, document = report(store, pairs_run(store), PAIRS_JOB)
    assert document["places"] == {"drawn": 24, "taken": 12, "rejected": {"blurred": 3, "flat": 9}}
    assert page.row("taken")[2:4] == ["12", "50 %"]
    assert page.row("flat")[1:4] == [REJECTION_TEXTS["flat"], "9", "37.5 %"]
    assert page.row("blurred")[2:4] == ["3", "12.5 %"]
    assert document["throughput"]["bytes_per_record"] == 10_000
    assert document["throughput"]["records_per_s"] == 1.2


def test_drawn_parameters_stand_beside_the_recipe(store: OutputStore) -> None:
    page, document = report(store, pairs_run(store), PAIRS_JOB)
    (noise,) = document["drawn"]["operators"]
    assert (noise["applied"], document["drawn"]["deviating"]) == (12, 0)
    assert [parameter["observed"] for parameter in noise["parameters"]] == [[6, 6], [9, 3]]
    assert "All of them follow the recipe" in page.visible
    assert [row["title"] for row in page.all("div") if row.get("title", "").startswith("reflect")] == [
        "reflect: 9 drawn, 75 %; recipe 75 %"
    ]
    assert "expected_draws" not in page.source
    assert "tallies" not in document


def test_what_does_not_follow_the_recipe_is_flagged_where_it_stands(store: OutputStore) -> None:
    odd = {"0.sigma.0": 40, "0.sigma.1": 0, "0": 40, "pairs": 40, "0.boundary.0": 30, "0.boundary.1": 10}
    page, document = report(store, pairs_run(store, **odd), PAIRS_JOB)
    assert document["drawn"]["deviating"] == 1
    text = " ".join(page.visible.split())
    assert "1 distribution does not follow the recipe" in text
    assert text.count("does not follow the recipe, p = ") == 1
    assert "deviates" in {group.get("class", "").rpartition(" ")[2] for group in page.all("g")}


def test_a_value_outside_the_recipe_is_flagged(store: OutputStore) -> None:
    page, document = report(store, pairs_run(store, **{"0.boundary.other": 1}), PAIRS_JOB)
    assert document["drawn"]["deviating"] == 1
    assert "does not follow the recipe, 3 lie where it cannot draw" in " ".join(page.visible.split())


def test_a_run_of_pairs_without_any_has_a_page(store: OutputStore) -> None:
    page, document = report(store, [], PAIRS_JOB)
    assert "No pair was made" in " ".join("".join(page.texts["h1"]).split())
    assert document["drawn"]["deviating"] == 0
    assert document["throughput"]["bytes_per_record"] is None


@pytest.mark.parametrize("caption", [b"", b"[1, 2]", b'{"a": 1}', b"\xff", b'[["name"]]', b"null"])
def test_damaged_captions_cost_the_caption_only(store: OutputStore, caption: bytes) -> None:
    run = pairs_run(store, units=1)
    keep_samples(store, "00000", {"u0p0.clean.webp": webp(1), "u0p0.caption.json": caption})
    page, _ = report(store, run, PAIRS_JOB)
    assert shown_exhibits(page) == ["u0p0"]


def test_a_caption_is_text_and_nothing_else(store: OutputStore) -> None:
    run = pairs_run(store, units=1)
    caption = json.dumps([[ATTACK, ATTACK]]).encode()
    keep_samples(store, "00000", {"u0p0.clean.webp": webp(1), "u0p0.caption.json": caption})
    place = PAIRS_JOB["expected_draws"][0]
    hostile = place | {"operator": ATTACK, "paths": [ATTACK]}
    hostile["parameters"] = [
        one | {"name": ATTACK, "meaning": ATTACK} | ({"options": [ATTACK, "b"]} if "options" in one else {})
        for one in place["parameters"]
    ]
    run[0]["tallies"] |= {f"0.{ATTACK}.0": 4, f"0.{ATTACK}.1": 4}
    page, _ = report(store, run, PAIRS_JOB | {"expected_draws": [hostile]})
    assert len(page.all("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.visible.count("<script>alert(1)</script>") >= 6


def test_without_figures_the_first_samples_are_kept_and_no_second_before_all_firsts() -> None:
    keeper = SampleKeeper()
    for number in range(30):
        for turn in range(2):
            keeper.offer(Sample(f"{number}-{turn}", None, {"clean": np.zeros((8, 8, 3), np.uint8)}, turn))
    assert [sample.key for sample in keeper.kept()] == [f"{n}-0" for n in range(12)]
    few = SampleKeeper()
    for number in range(3):
        for turn in range(4):
            few.offer(Sample(f"{number}-{turn}", None, {"clean": np.zeros((8, 8, 3), np.uint8)}, turn))
    assert [sample.key for sample in few.kept()] == [f"{n}-{turn}" for turn in range(4) for n in range(3)]


def test_without_figures_large_samples_take_no_more_room_than_with_them() -> None:
    keeper = SampleKeeper()
    for number in range(20):
        keeper.offer(Sample(f"{number}", None, {"clean": np.zeros((480, 640, 3), np.uint8)}))
    assert [sample.key for sample in keeper.kept()] == [f"{n}" for n in range(6)]


def test_a_run_of_failures_only_has_a_page(store: OutputStore) -> None:
    letters = [{"key": "k", "index": 0, "reason": "empty", "detail": "", "stage": "decode"}]
    page, document = report(store, [ledger("00000", [], dead_letters=letters)])
    assert "No picture was restored" in " ".join("".join(page.texts["h1"]).split())
    assert document["dead_letters"]["total"] == 1
    assert table(store).num_rows == 0


def test_an_empty_run_has_a_page(store: OutputStore) -> None:
    page, document = report(store, [], {})
    assert document["units"] == 0
    assert "The run held no record." in page.visible


def hostile_run(store: OutputStore) -> list[dict[str, Any]]:
    row = measured(ATTACK, 0, 28.0, 20.0)
    row["metrics"] |= {f"{ATTACK}[y,u8]": 1.0, f"input {ATTACK}[y,u8]": 0.5}
    row["notes"] = [ATTACK]
    letters = [{"key": ATTACK, "index": 1, "reason": ATTACK, "detail": ATTACK, "stage": ATTACK}]
    crops = {f"{ATTACK}.{role}.webp": webp(3) for role in ("degraded", "restored", "clean")}
    keep_samples(store, "00000", crops)
    counts = {"records_out": 1, ATTACK: 3}
    timings = {"wall": 1.0, ATTACK: 2.0}
    return [ledger("00000", [row], dead_letters=letters, samples="x", counts=counts, timings_s=timings)]


def test_strings_from_the_data_are_text_and_nothing_else(store: OutputStore) -> None:
    run = hostile_run(store)
    page, _ = report(
        store,
        run,
        JOB | {ATTACK: {ATTACK: [ATTACK]}, "command": ATTACK, "restorer": {"name": ATTACK}, "output": ATTACK},
    )
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == 3
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    assert page.visible.count("<script>alert(1)</script>") > 10
    assert "{{7*7}}" in page.visible


def test_only_the_pages_own_script_may_run(store: OutputStore) -> None:
    page, _ = report(store, hostile_run(store))
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    script = page.texts["script"][0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_page_needs_nothing_from_outside(store: OutputStore) -> None:
    page, _ = report(store, gallery_run(store))
    links = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert links
    inside = re.compile(r"#\w+|data:image/webp;base64,[A-Za-z0-9+/=]+|summary\.json|metrics\.parquet")
    assert [link for link in links if not inside.fullmatch(link)] == []
    assert not re.search(r"url\(|@import|https?://|//\w+\.\w+", page.source.replace("data:image", ""))
    assert {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form"} == set()


def test_names_that_are_not_utf_8_or_turn_the_reading_direction_are_shown_as_escapes(store: OutputStore) -> None:
    keys = ["caf\udce9", "evil\u202egnp.exe", "bell\a"]
    run = [ledger("00000", [measured(key, n, 30.0, 20.0) for n, key in enumerate(keys)])]
    page, _ = report(store, run)
    assert table(store)["key"].to_pylist() == ["caf\\udce9", "evil\u202egnp.exe", "bell\a"]
    for shown in ("caf\\udce9", "evil\\u202egnp.exe", "bell\\x07"):
        assert shown in page.visible


def test_the_page_comes_last(store: OutputStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write, publish = OutputStore.write, OutputStore.publish
    monkeypatch.setattr(OutputStore, "write", lambda self, name, data: written.append(name) or write(self, name, data))
    monkeypatch.setattr(
        OutputStore, "publish", lambda self, file, name: written.append(name) or publish(self, file, name)
    )
    report(store, full_run())
    assert written == ["report/metrics.parquet", "report/summary.json", "report/index.html"]


def test_ledgers_that_are_not_the_summarys_are_refused(store: OutputStore) -> None:
    run = full_run()
    with pytest.raises(ConservatorError, match="11 records and their summary 8"):
        write_report(store, summarise(run[:1]), JOB, iter(run))
    with pytest.raises(ConservatorError, match="the summary lacks"):
        write_report(store, summarise([ledger("0", [record("a", 0)])]), JOB, iter(run))
    assert store.read("report/index.html") is None


def test_a_report_goes_to_any_file_system() -> None:
    store = OutputStore("memory://report-test/out")
    keep_samples(store, "00000", {"p00.restored.webp": webp(1)})
    page, document = report(store, [ledger("00000", [measured("p00", 0, 30.0, 20.0)], samples="x")])
    assert document["records"] == 1
    assert len(page.all("img")) == 1


def test_memory_does_not_grow_with_the_records(store: OutputStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_table, "ROWS_PER_GROUP", 256)
    monkeypatch.setattr(metrics_table, "_ROWS_PER_BATCH", 100)

    def run(units: int) -> Iterator[dict[str, Any]]:
        for unit in range(units):
            yield ledger(f"{unit:05d}", [measured(f"{unit}/{n}", n, 25 + n / 64, 20.0) for n in range(128)])

    peaks = []
    for units in (10, 80):
        summary = summarise(run(units))
        tracemalloc.start()
        try:
            write_report(store, summary, JOB, run(units))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert table(store).num_rows == 128 * units
    assert peaks[1] < 1.2 * peaks[0]


def test_charts_count_every_value_once_on_a_common_axis() -> None:
    rng = np.random.default_rng(0)
    before, after = Series(0.01), Series(0.01)
    for n in range(1000):
        before.add(rng.normal(20, 0.3), ("u", "k", n))
        after.add(rng.normal(28, 3), ("u", "k", n))
    chart = draw_histogram(PSNR, "dB", {"input": before, "result": after})
    assert chart is not None
    assert [sum(bar.count for bar in layer.bars) for layer in chart.layers] == [1000, 1000]
    for layer, series in zip(chart.layers, (before, after), strict=True):
        low, high = series.quantile(0), series.quantile(1)
        assert low is not None
        assert high is not None
        assert layer.bars[0].low <= low < layer.bars[0].high
        assert layer.bars[-1].low <= high <= layer.bars[-1].high
        scale = {
            round((bar.x - layer.mean_x) / (bar.low - series.mean), 1)
            for bar in layer.bars
            if abs(bar.low - series.mean) > 1
        }
        assert max(scale, default=0) - min(scale, default=0) <= 0.1 + 1e-9
    assert chart.bin_width in (0.1, 0.2, 0.5, 1.0)


@pytest.mark.parametrize("values", [[28.0], [28.0, 28.0, 28.001], [-1.0, 1.0], [1.0, 1.0], [0.0]])
def test_charts_of_hardly_any_values_have_an_axis(values: list[float]) -> None:
    series = Series(0.0001)
    for n, value in enumerate(values):
        series.add(value, ("u", "k", n))
    chart = draw_histogram("gain", "", {"gain": series})
    assert chart is not None
    assert sum(bar.count for bar in chart.layers[0].bars) == len(values)
    assert len(chart.x_ticks) >= 2
    assert all(0 <= bar.x <= 640 and bar.width > 0 for bar in chart.layers[0].bars)
    assert (chart.zero_x is not None) == (min(values) < 0 < max(values))


def test_nothing_to_chart_is_no_chart() -> None:
    assert draw_histogram("psnr", "dB", {"result": Series(0.01)}) is None


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (28.126, PSNR, "28.13"),
        (0.80126, SSIM, "0.8013"),
        (None, PSNR, "–"),
        ("inf", PSNR, "∞"),
        ("nan", SSIM, "undefined"),
        (-0.5, PSNR, "−0.50"),
    ],
)
def test_figures_have_the_digits_of_their_metric(value: Any, name: str, text: str) -> None:
    assert format_figure(value, name) == text


def test_times_and_sizes_are_readable() -> None:
    assert [format_seconds(s) for s in (None, 0.04, 41.27, 200, 7500)] == [
        "–",
        "0.0 s",
        "41.3 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert [format_size(n) for n in (0, 999, 3_100_000, 2.5e15)] == ["0 bytes", "999 bytes", "3.1 MB", "2500.0 TB"]
    assert [format_rate(rate) for rate in (0.836, 23.71, 1250.4)] == ["0.84", "23.7", "1,250"]
    assert [format_chance(chance) for chance in (1e-6, 3.2e-12)] == ["1e-6", "3e-12"]
