"""The summary merges exactly, whatever the order and grouping, and its figures are those of the standard library and numpy."""

from __future__ import annotations

import copy
import json
import math
import pickle
import statistics
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.series import KEPT_EACH_WAY, Series
from transforms.summary import NOTES_KEPT, Summary, summarise

PSNR, SSIM = "psnr[rgb,u8]", "ssim[rgb,u8]"


def record(key: str, index: int = 0, metrics: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    row = {"key": key, "index": index, "width": 640, "height": 480, "channels": 3, "bits": 8, "notes": []}
    return row | {"metrics": metrics or {}} | changes


def ledger(unit: str, records: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    plain = {
        "format": 1,
        "unit": unit,
        "verb": "restore",
        "counts": {"records_out": len(records), "pixels_out": 307_200 * len(records)},
        "timings_s": {"wall": 0.1},
        "records": records,
        "dead_letters": [],
        "samples": None,
    }
    return plain | changes


figures = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(10, 50),
    st.sampled_from(["inf", "-inf", "nan", None, 0.1, 28.125]),
)


@st.composite
def ledgers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A run of a few units with figures of every kind, failures and notes."""
    run = []
    for number in range(draw(st.integers(1, 6))):
        rows = []
        for index in range(draw(st.integers(0, 5))):
            names = draw(st.sets(st.sampled_from([PSNR, SSIM, f"input {PSNR}"])))
            note = draw(st.sampled_from([[], ["ICC profile left out"], ["a", "b"]]))
            metrics = {name: draw(figures) for name in sorted(names)}
            rows.append(record(f"k{index}", index, metrics, channels=draw(st.sampled_from([1, 3])), notes=note))
        letters = [{"key": "x", "reason": draw(st.sampled_from(["empty", "corrupt"])), "stage": "decode"}]
        timings = {"wall": draw(st.floats(0, 1e6)), "decode": draw(st.floats(0, 1e6))}
        run.append(ledger(f"{number:05d}", rows, dead_letters=letters[: draw(st.integers(0, 1))], timings_s=timings))
    return run


@settings(max_examples=150, deadline=None)
@given(run=ledgers(), data=st.data())
def test_any_order_and_grouping_gives_the_same_summary(run: list[dict[str, Any]], data: st.DataObject) -> None:
    in_order = summarise(run)
    groups: list[Summary] = [Summary() for _ in range(data.draw(st.integers(1, 4)))]
    for one in data.draw(st.permutations(run)):
        groups[data.draw(st.integers(0, len(groups) - 1))].add_ledger(one)
    while len(groups) > 1:
        taken = groups.pop(data.draw(st.integers(0, len(groups) - 1)))
        groups[data.draw(st.integers(0, len(groups) - 1))].merge(taken)
    assert groups[0] == in_order
    assert json.dumps(groups[0].to_json()) == json.dumps(in_order.to_json())


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=40))
def test_mean_and_deviation_are_the_exact_ones_rounded_once(values: list[float]) -> None:
    series = Series(0.01)
    for index, value in enumerate(values):
        series.add(value, ("u", "k", index))
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    assert series.mean == float(mean)
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    assert series.standard_deviation == pytest.approx(math.sqrt(variance), rel=1e-15)
    assert series.standard_deviation == pytest.approx(statistics.stdev(values), rel=1e-12)
    assert (series.minimum, series.maximum) == (min(values), max(values))


def test_sums_lose_nothing_between_large_and_small() -> None:
    series = Series(0.01)
    for index, value in enumerate([1e300, 1.0, -1e300, 5e-324, 0.5]):
        series.add(value, ("u", "k", index))
    assert series.mean == float(Fraction(3, 2) / 5)
    assert series.standard_deviation == pytest.approx(1e300 / math.sqrt(2))


@given(values=st.lists(st.floats(5, 60), min_size=1, max_size=200), share=st.sampled_from([0.05, 0.5, 0.95]))
def test_quantiles_are_exact_to_half_a_bin(values: list[float], share: float) -> None:
    series = Series(0.01)
    for index, value in enumerate(values):
        series.add(value, ("u", "k", index))
    nearest_rank = np.quantile(values, share, method="inverted_cdf")
    assert series.quantile(share) == pytest.approx(nearest_rank, abs=0.005 + 1e-9)


def test_infinite_undefined_and_missing_figures_are_counted_apart() -> None:
    run = [
        ledger(
            "0", [record(f"{n}", n, {PSNR: value}) for n, value in enumerate([30.0, "inf", "nan", None, 20.0, "-inf"])]
        )
    ]
    run[0]["records"].append(record("unmeasured", 9))
    series = summarise(run).to_json()["metrics"][PSNR]
    assert (series["count"], series["infinite"], series["undefined"]) == (2, 1, 3)
    assert (series["mean"], series["min"], series["max"]) == (25.0, 20.0, 30.0)


def test_gains_pair_the_figures_of_one_record() -> None:
    pairs = [(28.5, 20.0), (19.0, 20.0), ("inf", 20.0), (30.0, "inf"), (25.0, 25.0)]
    rows = [record(f"{n}", n, {PSNR: after, f"input {PSNR}": before}) for n, (after, before) in enumerate(pairs)]
    rows.append(record("no input", 9, {PSNR: 99.0}))
    summary = summarise([ledger("0", rows)]).to_json()
    gain = summary["gains"][PSNR]
    assert (gain["count"], gain["below_zero"], gain["mean"]) == (3, 1, 2.5)
    assert [place["key"] for place in gain["lowest"]] == ["1", "4", "0"]
    assert set(summary["metrics"]) == {PSNR, f"input {PSNR}"}


def test_the_extremes_are_bounded_and_ties_go_by_place() -> None:
    rows = [record(f"k{n % 7}", n, {PSNR: float(n // 10)}) for n in range(500)]
    halves = [summarise([ledger("b", rows[:250])]), summarise([ledger("a", rows[250:])])]
    halves[0].merge(halves[1])
    shown = halves[0].to_json()["metrics"][PSNR]
    everything = sorted(
        (row["metrics"][PSNR], unit, row["key"], row["index"])
        for unit, part in (("b", rows[:250]), ("a", rows[250:]))
        for row in part
    )
    lowest = [(entry["value"], entry["unit"], entry["key"], entry["index"]) for entry in shown["lowest"]]
    highest = [(entry["value"], entry["unit"], entry["key"], entry["index"]) for entry in shown["highest"]]
    assert lowest == everything[:KEPT_EACH_WAY]
    assert highest == sorted(everything, key=lambda entry: (-entry[0], *entry[1:]))[:KEPT_EACH_WAY]


def test_counts_reasons_and_kinds_add_up() -> None:
    letters = [{"key": "x", "reason": "empty", "stage": "decode"}, {"key": "y", "reason": "empty", "stage": "encode"}]
    run = [
        ledger(
            "0", [record("a"), record("b", channels=1)], dead_letters=letters, timings_s={"wall": 0.1, "decode": 0.2}
        ),
        ledger("1", [record("c", bits=16)], timings_s={"wall": 0.2}),
    ]
    summary = summarise(run).to_json()
    assert (summary["units"], summary["records"]) == (2, 3)
    assert summary["counts"] == {"pixels_out": 921_600, "records_out": 3}
    assert summary["timings_s"] == {"decode": 0.2, "wall": float(Fraction(0.1) + Fraction(0.2))}
    assert summary["dead_letters"] == {"total": 2, "by_reason": {"empty": 2}, "by_stage": {"decode": 1, "encode": 1}}
    assert summary["kinds"] == {"RGB 16 bit": 1, "RGB 8 bit": 1, "grey 8 bit": 1}
    assert summary["megapixels"]["mean"] == 0.3072


def test_notes_are_bounded_and_still_merge_exactly() -> None:
    wordings = [f"note {n:04d}" for n in range(3 * NOTES_KEPT)]
    run = [ledger(f"{n}", [record("k", notes=wordings[n::5] + wordings[:2])]) for n in range(5)]
    forward, backward = summarise(run), summarise(run[::-1])
    assert forward == backward
    notes = forward.to_json()["notes"]
    assert list(notes["by_wording"]) == wordings[:NOTES_KEPT]
    assert notes["by_wording"][wordings[0]] == 6
    assert notes["total"] == 3 * NOTES_KEPT + 10


def test_merging_leaves_the_other_one_alone() -> None:
    first, second = (
        summarise([ledger("0", [record("a", 0, {PSNR: 30.0})])]),
        summarise([ledger("1", [record("b", 0, {PSNR: 20.0})])]),
    )
    kept = copy.deepcopy(second)
    first.merge(second)
    first.merge(second)
    assert second == kept


def test_a_summary_travels_between_workers_and_stays_small() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for count in (2_000, 20_000):
        rows = [
            record(f"photographs/{n:06d}", n, {PSNR: rng.normal(28, 3), SSIM: rng.beta(8, 2)}) for n in range(count)
        ]
        summary = summarise([ledger("0", rows)])
        state = pickle.dumps(summary)
        assert pickle.loads(state) == summary
        sizes.append(len(state))
    assert sizes[1] < 150_000
    assert sizes[1] < 4 * sizes[0]


def test_an_empty_run_has_a_summary() -> None:
    summary = Summary()
    assert json.loads(json.dumps(summary.to_json(), allow_nan=False))["metrics"] == {}
    assert summary.primary_metric() is None


def test_the_primary_metric_is_a_psnr_where_there_is_one() -> None:
    assert (
        summarise(
            [ledger("0", [record("a", 0, {"ssim[y,u8]": 1, f"input {PSNR}": 1, "psnr[y,u8]": 2})])]
        ).primary_metric()
        == "psnr[y,u8]"
    )
    assert summarise([ledger("0", [record("a", 0, {SSIM: 1, "mse[rgb,u8]": 3})])]).primary_metric() == "mse[rgb,u8]"
