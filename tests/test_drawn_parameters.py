"""What was drawn, beside the recipe: exact counts in any grouping, exact probabilities, and a flag when they disagree."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.degradation import (
    Choice,
    Constant,
    Distribution,
    GaussianNoise,
    ImpulseNoise,
    InOrder,
    LogUniform,
    Maybe,
    Normal,
    OneOf,
    PoissonNoise,
    RoundTo8Bit,
    Shuffle,
    SpeckleNoise,
    Uniform,
    UniformQuantisation,
    WordChoice,
    draw_steps,
)
from models.degradation.blur import ComposedBlur, DefocusBlur, GaussianBlur
from models.degradation.expectations import MOST_BINS, bins_of_numbers, bins_of_words, places_of
from models.degradation.motion_labels import MotionLabelBlur
from models.degradation.short_form import short_form
from models.degradation.tally import DrawTally
from models.recipes import load_recipe, shipped_recipes
from transforms.comparison_charts import draw_columns, draw_words, format_share
from transforms.drawn_parameters import FLAG_BELOW, compare_with_recipe, format_number
from transforms.drawn_section import lay_out_cards
from transforms.goodness_of_fit import chance_of, chi_square_tail
from transforms.ledger import Ledger
from transforms.summary import Summary, summarise
from transforms.tallies import packed_tallies, unpacked_tallies
from transforms.unit_pipeline import _add_earlier_results

SHAPE = (64, 64, 3)
DRAWS = 20_000

REAL: dict[str, Distribution] = {
    "constant": Constant(0.5),
    "uniform": Uniform(-1.0, 3.0),
    "uniform of one value": Uniform(2.0, 2.0),
    "log_uniform": LogUniform(0.001, 20.0),
    "normal": Normal(5.0, 2.0),
    "normal without spread": Normal(5.0, 0.0),
    "choice": Choice((5.0, 1.0, 2.5)),
    "choice with weights": Choice((0.1, 0.2, 0.1, 7.0), (1.0, 2.0, 3.0, 0.0)),
    "choice of very many": Choice(tuple(float(n * n) for n in range(100))),
}
WHOLE: dict[str, Distribution] = {
    "constant": Constant(4),
    "uniform": Uniform(3, 9),
    "wide uniform": Uniform(30, 95),
    "very wide uniform": Uniform(0, 1_000_000),
    "log_uniform": LogUniform(1, 12),
    "wide log_uniform": LogUniform(2, 100_000),
    "normal": Normal(10.4, 1.3),
    "wide normal": Normal(100.0, 30.0),
    "normal without spread": Normal(7.0, 0.0),
    "choice": Choice((1, 3, 5), (1, 1, 2)),
}


def tally_of(degradation: Any, pairs: int, seed: int = 0) -> tuple[DrawTally, Counter[str]]:
    tally, counts, rng = DrawTally(degradation), Counter[str](), np.random.default_rng(seed)
    for _ in range(pairs):
        tally.add(draw_steps(degradation, rng, SHAPE), counts)
    return tally, counts


def compared(degradation: Any, pairs: int = 4000, seed: int = 0) -> dict[str, Any]:
    tally, counts = tally_of(degradation, pairs, seed)
    return compare_with_recipe(json.loads(json.dumps(tally.describe())), counts)


# ---------------------------------------------------------------- probabilities


@pytest.mark.parametrize(
    ("distribution", "whole"),
    [(one, False) for one in REAL.values()] + [(one, True) for one in WHOLE.values()],
    ids=[f"real {name}" for name in REAL] + [f"whole {name}" for name in WHOLE],
)
def test_large_samples_fall_into_the_bins_as_often_as_the_recipe_says(distribution: Distribution, whole: bool) -> None:
    bins = bins_of_numbers(distribution, whole=whole)
    assert sum(bins.expected) == pytest.approx(1, abs=1e-12)
    assert min(bins.expected) >= 0
    assert len(bins.expected) <= MOST_BINS
    rng = np.random.default_rng(7)
    draw = distribution.sample_integer if whole else distribution.sample
    drawn = [draw(rng) for _ in range(DRAWS)]
    if bins.options:
        counted = Counter(drawn)
        observed = [counted.pop(option, 0) for option in bins.options]
        assert not counted, "a value without a bin"
    else:
        assert bins.edges[0] <= min(drawn)
        assert max(drawn) <= bins.edges[-1]
        observed = np.histogram(drawn, bins.edges)[0].tolist()
    # Seed 7 is one of a thousand; the bound is far from any of them, and far from a wrong bin.
    assert chance_of(observed, bins.expected) > 1e-4


def test_the_bins_of_a_logarithmic_distribution_are_even_on_its_scale() -> None:
    bins = bins_of_numbers(LogUniform(5, 500))
    ratios = [high / low for low, high in zip(bins.edges, bins.edges[1:], strict=False)]
    assert ratios == pytest.approx([100 ** (1 / len(ratios))] * len(ratios))
    assert bins.expected == pytest.approx([1 / len(ratios)] * len(ratios))
    assert bins.logarithmic


def test_whole_numbers_never_fall_on_an_edge() -> None:
    for distribution in WHOLE.values():
        assert all(edge != round(edge) for edge in bins_of_numbers(distribution, whole=True).edges)


def test_a_word_has_the_weight_of_all_its_mentions() -> None:
    bins = bins_of_words(WordChoice(("reflect", "zero", "reflect"), (1.0, 2.0, 1.0)))
    assert (bins.options, bins.expected) == (("reflect", "zero"), (0.5, 0.5))


NESTED = InOrder(
    (
        Shuffle((OneOf((GaussianNoise(0.1), SpeckleNoise(0.2)), (3.0, 1.0)), RoundTo8Bit())),
        Maybe(InOrder((ImpulseNoise(0.1), Maybe(GaussianNoise(0.3), 0.5))), 0.2),
        OneOf((RoundTo8Bit(), UniformQuantisation(4), InOrder(())), (1.0, 1.0, 2.0)),
    )
)


MIXED = InOrder(
    (
        Shuffle((OneOf((PoissonNoise(LogUniform(5, 500)), SpeckleNoise(Uniform(0, 0.3))), (2.0, 1.0)), RoundTo8Bit())),
        GaussianNoise(Choice((0.1, 0.2, 0.4), (3.0, 2.0, 1.0)), WordChoice(("independent", "shared"))),
        Maybe(UniformQuantisation(Uniform(3, 16)), 0.5),
    )
)


def test_shares_are_products_along_the_way_and_paths_tell_places_apart() -> None:
    places = [(place.operator.name, place.paths[0], place.share) for place in places_of(NESTED)]
    assert places == [
        ("gaussian_noise", "sequence 1 › shuffle 1 › one_of 1", 0.75),
        ("speckle_noise", "sequence 1 › shuffle 1 › one_of 2", 0.25),
        ("round_to_8bit", "sequence 1 › shuffle 2", 1.0),
        ("impulse_noise", "sequence 2 › maybe › sequence 1", 0.2),
        ("gaussian_noise", "sequence 2 › maybe › sequence 2 › maybe", 0.1),
        ("round_to_8bit", "sequence 3 › one_of 1", 0.25),
        ("uniform_quantisation", "sequence 3 › one_of 2", 0.25),
    ]


def test_every_chain_form_happens_as_often_as_the_recipe_says() -> None:
    found = compared(NESTED, pairs=6000)
    assert found["deviating"] == 0
    for place in found["operators"]:
        assert place["applied"] == pytest.approx(6000 * place["share"], abs=4 * math.sqrt(6000) / 2)


@pytest.mark.parametrize("name", sorted(set(shipped_recipes())))
def test_what_a_shipped_recipe_draws_follows_it(name: str) -> None:
    recipe = load_recipe(name)
    found = compared(recipe.degradation, pairs=600)
    odd = [
        (place["operator"], place["paths"], parameter["name"], parameter["chance"], parameter["other"])
        for place in found["operators"]
        for parameter in place["parameters"]
        if not parameter["follows"]
    ]
    assert odd == []
    assert [place["operator"] for place in found["operators"] if not place["follows"]] == []
    counted = [
        parameter["count"] == place["applied"] for place in found["operators"] for parameter in place["parameters"]
    ]
    assert all(counted), "a setting is not drawn under its own name"


# ---------------------------------------------------------------- counting


def test_an_operator_that_stands_twice_is_counted_apart() -> None:
    chain = Shuffle((GaussianNoise(Uniform(0, 1)), GaussianNoise(Uniform(10, 11))))
    first, second = compared(chain, pairs=500)["operators"]
    assert (first["applied"], second["applied"]) == (500, 500)
    assert (first["parameters"][0]["other"], second["parameters"][0]["other"]) == (0, 0)
    assert first["parameters"][0]["edges"][-1] < second["parameters"][0]["edges"][0]


def test_the_members_of_a_composed_blur_are_counted() -> None:
    blur = ComposedBlur((DefocusBlur(Uniform(0, 4)), GaussianBlur(Uniform(0.1, 2))))
    found = compared(InOrder((blur, GaussianBlur(Uniform(5, 6)))), pairs=800)
    assert [place["operator"] for place in found["operators"]] == [
        "composed_blur",
        "defocus_blur",
        "gaussian_blur",
        "gaussian_blur",
    ]
    assert [place["applied"] for place in found["operators"]] == [800] * 4
    assert found["deviating"] == 0


def test_one_object_at_two_places_is_counted_together() -> None:
    noise = GaussianNoise(Uniform(0, 1))
    found = compared(InOrder((noise, Maybe(noise, 0.5))), pairs=1000)
    (place,) = found["operators"]
    assert place["paths"] == ["sequence 1", "sequence 2 › maybe"]
    assert place["share"] == 1.5
    assert 1400 < place["applied"] < 1600
    assert place["chance"] is None
    assert place["follows"]


def test_steps_of_another_degradation_are_refused() -> None:
    tally, steps = DrawTally(GaussianNoise(0.1)), draw_steps(GaussianNoise(0.1), np.random.default_rng(0), SHAPE)
    with pytest.raises(ValueError, match="not drawn from this recipe"):
        tally.add(steps, Counter())
    with pytest.raises(ValueError, match="not drawn from this recipe"):
        tally.add([{"gaussian_noise": {"sigma": 0.1}}], Counter())


def test_the_label_of_a_motion_is_counted_although_it_is_no_setting() -> None:
    found = compared(MotionLabelBlur(), pairs=1500)
    parameters = {parameter["name"]: parameter for parameter in found["operators"][0]["parameters"]}
    assert parameters["label"]["count"] == parameters["length_px"]["count"] == 1500
    assert parameters["length_px"]["expected"][0] == pytest.approx(1 / 73)
    assert parameters["length_px"]["options"] == [1, *range(3, 26, 2)]
    assert found["deviating"] == 0


def test_a_drawn_step_is_the_plain_step_in_files_and_other_processes() -> None:
    import copy
    import pickle

    (step,) = draw_steps(GaussianNoise(0.1), np.random.default_rng(0), SHAPE)
    assert json.loads(json.dumps(step)) == step
    assert type(pickle.loads(pickle.dumps(step))) is dict
    assert copy.deepcopy(step) == step


def test_the_size_of_a_tally_depends_on_the_recipe_only() -> None:
    _, few = tally_of(MIXED, 1500)
    _, many = tally_of(MIXED, 3000, seed=1)
    assert set(few) == set(many)
    assert len(json.dumps(packed_tallies(many))) < 500


def ledger_of(number: int, tallies: Counter[str]) -> dict[str, Any]:
    plain = {"unit": f"{number:05d}", "counts": {}, "timings_s": {}, "records": [], "dead_letters": []}
    return plain | {"tallies": dict(tallies)}


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_any_order_and_grouping_of_units_gives_the_same_counts(sizes: list[int], seed: int) -> None:
    tally, whole, rng = DrawTally(MIXED), Counter[str](), np.random.default_rng(seed)
    ledgers = []
    for number, pairs in enumerate(sizes):
        counts = Counter[str]()
        for _ in range(pairs):
            steps = draw_steps(MIXED, rng, SHAPE)
            tally.add(steps, counts)
            tally.add(steps, whole)
        ledgers.append(ledger_of(number, counts))
    order = random.Random(seed)
    order.shuffle(ledgers)
    cut = order.randint(0, len(ledgers))
    left, right = summarise(ledgers[:cut]), summarise(ledgers[cut:])
    right.merge(left)
    assert +right.tallies == whole
    assert right == summarise(ledgers)


@settings(max_examples=60)
@given(
    tallies=st.dictionaries(
        st.from_regex(r"pairs|[0-9]{1,2}(\.[a-z_]{1,8}\.([0-9]|1[0-9]|other))?", fullmatch=True), st.integers(1, 10**12)
    )
)
def test_a_ledger_gives_back_the_counts_that_were_written(tallies: dict[str, int]) -> None:
    assert unpacked_tallies(json.loads(json.dumps(packed_tallies(tallies)))) == tallies


def test_a_ledger_takes_a_few_kilobytes_for_the_longest_recipe() -> None:
    _, counts = tally_of(load_recipe("real-esrgan").degradation, 400)
    assert len(json.dumps(packed_tallies(counts))) < 8000


def test_a_retry_adds_to_what_its_unit_had_drawn() -> None:
    earlier = ledger_of(0, Counter({"pairs": 3, "0": 3, "0.sigma.4": 2, "0.sigma.5": 1}))
    earlier |= {"samples": None, "counts": {"records_in": 2}}
    retried = Ledger("00000", "degrade", "f", [], "tar", counts={"dead_letters": 0, "bytes_out": 9})
    retried.tallies = {"pairs": 1, "0": 1, "0.sigma.5": 1}
    _add_earlier_results(retried, earlier)
    assert retried.tallies == {"pairs": 4, "0": 4, "0.sigma.4": 2, "0.sigma.5": 2}


def test_ledgers_of_other_verbs_have_no_tallies() -> None:
    summary = Summary()
    plain = ledger_of(0, Counter())
    del plain["tallies"]
    summary.add_ledger(plain)
    assert summary.to_json()["tallies"] == {}


# ---------------------------------------------------------------- the flag


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (Uniform(0, 0.95), Uniform(0, 1)),
        (Uniform(0, 1), Uniform(0, 0.95)),
        (Uniform(0.001, 1), LogUniform(0.001, 1)),
        (Normal(0.5, 0.1), Uniform(0, 1)),
        (Normal(5, 1.1), Normal(5, 1)),
        (Choice((0.1, 0.2), (5.0, 6.0)), Choice((0.1, 0.2))),
        (Constant(0.3), Constant(0.2)),
        (Constant(0.3), Uniform(0, 1)),
    ],
)
def test_a_distribution_that_is_not_the_recipes_is_flagged(drawn: Distribution, said: Distribution) -> None:
    right, wrong = GaussianNoise(said), GaussianNoise(drawn)
    tally, counts, rng = DrawTally(right), Counter[str](), np.random.default_rng(0)
    for _ in range(DRAWS):
        (step,) = draw_steps(wrong, rng, SHAPE)
        step.drawn_by = right  # type: ignore[attr-defined]
        tally.add([step], counts)
    found = compare_with_recipe(tally.describe(), counts)
    sigma = found["operators"][0]["parameters"][0]
    assert (sigma["name"], sigma["count"]) == ("sigma", DRAWS)
    assert not sigma["follows"]
    assert sigma["chance"] < FLAG_BELOW
    assert found["deviating"] == 1
    assert found["operators"][0]["follows"]


def test_an_operator_that_happens_too_often_is_flagged() -> None:
    said, drawn = Maybe(RoundTo8Bit(), 0.5), Maybe(RoundTo8Bit(), 0.55)
    tally, counts, rng = DrawTally(said), Counter[str](), np.random.default_rng(0)
    for _ in range(DRAWS):
        steps = draw_steps(drawn, rng, SHAPE)
        for step in steps:
            step.drawn_by = said.member  # type: ignore[attr-defined]
        tally.add(steps, counts)
    found = compare_with_recipe(tally.describe(), counts)
    assert not found["operators"][0]["follows"]
    assert found["deviating"] == 1


def test_a_value_that_the_recipe_cannot_draw_is_flagged_at_once() -> None:
    tally, counts = tally_of(GaussianNoise(Uniform(0, 1)), 100)
    counts["0.sigma.other"] += 1
    sigma = compare_with_recipe(tally.describe(), counts)["operators"][0]["parameters"][0]
    assert (sigma["other"], sigma["count"], sigma["chance"]) == (1, 101, 0.0)


def test_values_off_by_one_rounding_have_a_bin() -> None:
    tally, counts = DrawTally(GaussianNoise(LogUniform(0.001, 20.0))), Counter[str]()
    degradation = tally.places[0].operator
    for value in (0.001, 20.0, 19.999999999999996):
        (step,) = draw_steps(degradation, np.random.default_rng(0), SHAPE)
        step["gaussian_noise"] = dict(step["gaussian_noise"]) | {"sigma": value}  # type: ignore[index]
        tally.add([step], counts)
    assert counts["0.sigma.0"] == 1
    assert counts["0.sigma.19"] == 2


def test_a_run_that_follows_its_recipe_is_hardly_ever_flagged() -> None:
    rng = np.random.default_rng(3)
    for expected in ([0.05] * 20, [0.9, 0.1], [0.01] * 10 + [0.9], [0.5, 0.3, 0.2]):
        for total in (30, 300, 3000):
            counts = rng.multinomial(total, expected, size=1000)
            chances = np.array([chance_of(each.tolist(), expected) for each in counts])
            assert (chances < 1e-3).mean() <= 0.008
            assert chances.min() > FLAG_BELOW


def test_the_chance_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 8, 19, 23):
        for value in (0.0, 0.3, 5.0, 60.0, 400.0):
            assert chi_square_tail(value, degrees) == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-10)
    observed, expected = [130, 90, 80, 100], [0.25] * 4
    reference = stats.power_divergence(observed, lambda_="log-likelihood").pvalue
    assert chance_of(observed, expected) == pytest.approx(reference, rel=1e-10)


def test_few_draws_prove_nothing_and_impossible_ones_everything() -> None:
    assert chance_of([0, 0], [0.5, 0.5]) == 1
    assert chance_of([3, 0, 0], [0.1, 0.8, 0.1]) == 1
    assert chance_of([5, 1], [1.0, 0.0]) == 0
    assert chance_of([0, 7], [0.0, 1.0]) == 1


# ---------------------------------------------------------------- charts


def test_columns_stand_for_shares_and_the_outline_for_the_recipe() -> None:
    parameter = {
        "options": [1, 2, 4, 8],
        "expected": [0.5, 0.25, 0.25, 0.0],
        "observed": [40, 30, 30, 0],
        "count": 100,
        "whole": True,
        "logarithmic": False,
    }
    chart = draw_columns(parameter)
    heights = [bar.observed.length for bar in chart.bins]
    assert heights[0] / heights[1] == pytest.approx(4 / 3, abs=0.01)
    assert heights[3] == 0
    assert chart.outline.count("M") == 4
    assert [tick.label for tick in chart.x_ticks] == ["1", "2", "4", "8"]
    assert chart.bins[0].text == "1: 40 drawn, 40 %; recipe 50 %"
    unit = heights[0] / 0.4
    band, bottom = chart.bins[0].chance, chart.bins[0].observed.start + heights[0]
    reach = 1.96 * math.sqrt(0.5 * 0.5 / 100)
    assert bottom - band.start == pytest.approx(unit * (0.5 + reach), abs=0.02)
    assert bottom - band.start - band.length == pytest.approx(unit * (0.5 - reach), abs=0.02)


@pytest.mark.parametrize("distribution", [*REAL.values(), LogUniform(1, 1e9), Uniform(0, 1e-4), Uniform(-3000, 5000)])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_every_chart_fits_its_frame(distribution: Distribution, count: int) -> None:
    bins = bins_of_numbers(distribution)
    observed = [0] * len(bins.expected)
    observed[-1] = count
    chart = draw_columns(bins.to_json() | {"observed": observed, "count": count})
    assert 1 <= len(chart.x_ticks) <= 12
    assert sum(len(tick.label) + 1 for tick in chart.x_ticks) <= 48
    for bar in chart.bins:
        assert bar.across.start >= 38
        assert bar.across.start + bar.across.length <= 306.1
        for part in (bar.observed, bar.chance):
            assert part.start >= 7
            assert part.start + part.length <= 99.1


def test_rows_of_words_share_one_scale() -> None:
    rows = draw_words({"options": ["a", "b"], "expected": [0.75, 0.25], "observed": [80, 20], "count": 100})
    assert rows[0].observed / rows[1].observed == pytest.approx(4, rel=0.01)
    assert rows[0].expected / rows[1].expected == pytest.approx(3, rel=0.01)
    assert max(row.chance.start + row.chance.length for row in rows) == pytest.approx(100, abs=0.02)
    assert [row.share for row in rows] == [0.8, 0.2]


def test_cards_leave_out_what_is_always_the_same() -> None:
    chain = InOrder((ImpulseNoise(Uniform(0, 1)), RoundTo8Bit(), RoundTo8Bit()))
    cards = lay_out_cards(compared(chain, pairs=50))
    assert [(card.place["operator"], card.number, card.of) for card in cards] == [
        ("impulse_noise", 1, 1),
        ("round_to_8bit", 1, 2),
        ("round_to_8bit", 2, 2),
    ]
    assert [panel.parameter["name"] for panel in cards[0].panels] == ["density"]
    assert ("salt", "0.5") in cards[0].constants


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0980392, "0.098"),
        (12, "12"),
        (1234.5, "1,234"),
        (-0.5, "−0.5"),
        (1e-5, "1e-05"),
        ("zero", "zero"),
        (3.0, "3"),
    ],
)
def test_numbers_have_three_digits_that_count(value: Any, text: str) -> None:
    assert format_number(value) == text


def test_shares_have_as_many_digits_as_they_need() -> None:
    assert [format_share(share) for share in (0, 0.0004, 0.0526, 0.25, 0.333333, 1)] == [
        "0 %",
        "0.04 %",
        "5.3 %",
        "25 %",
        "33.3 %",
        "100 %",
    ]


def test_the_short_form_has_what_a_person_wants_to_know() -> None:
    steps = [
        {"impulse_noise": {"density": 0.01234567, "salt": 0.5, "stream": "0" * 32}},
        {"round_to_8bit": {}},
        {"gaussian_noise": {"sigma": 0.1, "across_channels": "correlated", "covariance": [[1.0, 0.5], [0.5, 1.0]]}},
    ]
    assert short_form(steps) == (
        ("impulse_noise", "density 0.0123"),
        ("round_to_8bit", ""),
        ("gaussian_noise", "sigma 0.1, across_channels correlated"),
    )


# ---------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of degrade over a few pictures, with flat places to reject."""
    from PIL import Image

    from pipelines.main import main

    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        picture = rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)
        picture[:, 60:] = 90
        Image.fromarray(picture).save(folder / "in" / f"{number}.png")
    (folder / "recipe.yaml").write_text(
        """
kind: degradation
description: a test
source: none
patches: {size: 24, per_image: 30, minimum_std: 0.1, attempts: 4}
degradation:
  sequence:
    - maybe: {probability: 0.5, gaussian_noise: {sigma: {uniform: [0.02, 0.2]}}}
    - resize: {scale: 1/2, kernel: {choice: [nearest, matlab_bicubic], weights: [1, 3]}}
""",
        encoding="utf-8",
    )
    words = ["--input", str(folder / "in"), "--recipe", str(folder / "recipe.yaml"), "--output", str(folder / "out")]
    assert main(["degrade", *words, "--pictures_per_unit", "2", "--quiet"]) == 0
    return folder / "out"


def test_the_report_of_a_run_shows_what_was_drawn(finished_run: Path) -> None:
    document = json.loads((finished_run / "report" / "summary.json").read_text("utf-8"))
    drawn, records = document["drawn"], document["records"]
    assert drawn["pairs"] == records > 60
    assert drawn["deviating"] == 0
    noise, resize = drawn["operators"]
    assert (noise["operator"], noise["share"]) == ("gaussian_noise", 0.5)
    kernel = next(parameter for parameter in resize["parameters"] if parameter["name"] == "kernel")
    assert (kernel["options"], kernel["expected"], kernel["count"]) == (
        ["nearest", "matlab_bicubic"],
        [0.25, 0.75],
        records,
    )
    steps = [
        json.loads(data)["parameters"]["degradation"]
        for path in sorted(finished_run.glob("*.tar"))
        for name, data in members_of(path).items()
        if name.endswith(".json")
    ]
    assert noise["applied"] == sum(len(each) == 2 for each in steps)
    words = Counter(each[-1]["resize"]["kernel"] for each in steps)
    assert kernel["observed"] == [words["nearest"], words["matlab_bicubic"]]
    page = (finished_run / "report" / "index.html").read_text("utf-8")
    assert "What was drawn" in page
    assert "All of them follow the recipe" in page
    assert "expected_draws" not in page
    assert "expected_draws" not in document["job"]
    assert "tallies" not in document


def members_of(path: Path) -> dict[str, bytes]:
    import tarfile

    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_the_report_of_a_run_counts_rejected_places(finished_run: Path) -> None:
    document = json.loads((finished_run / "report" / "summary.json").read_text("utf-8"))
    places = document["places"]
    assert places["taken"] == document["records"]
    assert places["rejected"]["flat"] > 10
    assert places["drawn"] == places["taken"] + sum(places["rejected"].values())
    page = (finished_run / "report" / "index.html").read_text("utf-8")
    assert "Hardly anything varies in it." in page


def test_the_report_of_a_run_states_rates_and_sizes(finished_run: Path) -> None:
    document = json.loads((finished_run / "report" / "summary.json").read_text("utf-8"))
    throughput, records = document["throughput"], document["records"]
    assert throughput["bytes_per_record"] == document["counts"]["bytes_out"] / records
    assert throughput["records_per_s"] == pytest.approx(records / throughput["wall_s"])
    assert throughput["records_per_worker_s"] == pytest.approx(records / document["timings_s"]["wall"])


def test_the_samples_of_a_run_have_their_parameters_under_them(finished_run: Path) -> None:
    page = (finished_run / "report" / "index.html").read_text("utf-8")
    assert page.count('class="exhibit"') == 16  # four of each picture
    assert "<b>resize</b> scale 0.5" in page
    assert 'width="12" height="12"' in page
    assert 'class="stage enlarged"' in page


def test_workers_do_not_change_what_was_drawn(finished_run: Path, tmp_path: Path) -> None:
    from pipelines.main import main

    words = ["--input", str(finished_run.parent / "in"), "--recipe", str(finished_run.parent / "recipe.yaml")]
    alone = ["--pictures_per_unit", "1", "--num_local_workers", "1", "--quiet"]
    assert main(["degrade", *words, "--output", str(tmp_path / "out"), *alone]) == 0
    documents = [
        json.loads((folder / "report" / "summary.json").read_text("utf-8"))["drawn"]
        for folder in (finished_run, tmp_path / "out")
    ]
    assert documents[0] == documents[1]
