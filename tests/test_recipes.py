"""Recipes: pairs follow from (seed, key, patch) alone, can be made again from their JSON, and are cut as asked."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from models.degradation import OPERATORS, GaussianNoise, InOrder, Maybe, RoundTo8Bit
from models.degradation.blur import GaussianBlur
from models.degradation.sampling import Resize
from models.recipes import Cut, Pair, Patches, Recipe, Rejection, load_recipe, shipped_recipes
from models.recipes.channels import with_channels
from models.recipes.loader import FOLDER
from models.recipes.patches import difference_hash
from transforms.errors import ConfigurationError
from transforms.randomness import generator
from transforms.value_range import from_float, to_float

SHIPPED = shipped_recipes()


def picture(height: int = 120, width: int = 140, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(5).random((height, width, channels), dtype=np.float32)
    return values if dtype == "float32" else from_float(values, dtype)


def made(
    recipe: Recipe, samples: np.ndarray, key: str = "a", patch: int = 0, seed: int = 1, size: int | None = None
) -> Pair:
    pair = recipe.pair(samples, key=key, patch=patch, seed=seed, size=size)
    assert isinstance(pair, Pair), pair
    return pair


def same(one: Pair, other: Pair) -> bool:
    return (
        one.clean.tobytes() == other.clean.tobytes()
        and one.degraded.tobytes() == other.degraded.tobytes()
        and json.dumps(one.parameters) == json.dumps(other.parameters)
    )


# --- what ships -----------------------------------------------------------------------------------------------------


def test_the_recipes_that_ship():
    promised = {"dncnn-15", "dncnn-25", "dncnn-50", "dncnn-blind", "gaussian-25", "noise-zoo", "practice-sheet"}
    assert promised <= set(shipped_recipes())
    assert not promised & set(shipped_recipes("training"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_names_itself_and_says_what_it_is_for(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.source


@pytest.mark.parametrize(("name", "level"), [("dncnn-15", 15), ("dncnn-25", 25), ("dncnn-50", 50)])
def test_dncnn_pairs_are_grey_patches_with_unclipped_noise_of_their_level(name, level):
    recipe = load_recipe(name)
    assert recipe.store == "npy"
    noise = np.stack([p.degraded - p.clean for p in recipe.pairs(picture(), key="a", seed=1) if isinstance(p, Pair)])
    assert noise.shape == (512, 40, 40, 1)
    assert abs(noise.std() * 255 - level) < 5 * level / np.sqrt(2 * noise.size)


def test_dncnn_blind_draws_a_level_for_each_patch():
    pairs = load_recipe("dncnn-blind").pairs(picture(), key="a", seed=1)
    levels = [p.parameters["degradation"][0]["gaussian_noise"]["sigma"] * 255 for p in pairs if isinstance(p, Pair)]
    assert stats.kstest(levels, stats.uniform(0, 55).cdf).pvalue > 0.01


def test_practice_sheet_noise_is_neither_clipped_nor_rounded():
    recipe = load_recipe("practice-sheet")
    pair = made(recipe, picture(300, 300))
    assert recipe.store == "npy"
    assert pair.degraded.min() < 0
    assert pair.degraded.max() > 1
    assert abs((pair.degraded - pair.clean).std() - 0.1) < 5 * 0.1 / np.sqrt(2 * pair.clean.size)


@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_25_survives_storing_as_8_bit_and_costs_what_theory_says(channels):
    recipe = load_recipe("gaussian-25")
    grey = np.full((300, 300, channels), 128, np.uint8)
    pair = made(recipe, grey)
    assert recipe.store == "png"
    assert pair.clean.shape == grey.shape
    assert to_float(from_float(pair.degraded, np.uint8)).tobytes() == pair.degraded.tobytes()
    error = (pair.degraded - pair.clean) * 255  # mid-grey: nothing is clipped, rounding adds 1/12
    assert abs((error.astype(np.float64) ** 2).mean() - (625 + 1 / 12)) < 5 * 625 * np.sqrt(2 / error.size)


def test_noise_zoo_draws_all_that_it_names():
    recipe = load_recipe("noise-zoo")
    pairs = recipe.pairs(picture(), key="a", seed=1, per_image=60)
    steps = [step for pair in pairs if isinstance(pair, Pair) for step in pair.parameters["degradation"]]
    named = {word for word in re.findall(r'"(\w+)"', json.dumps(recipe.to_json())) if word in OPERATORS}
    assert {name for step in steps for name in step} == named


# --- made again -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_pair_is_made_again_from_its_json_to_the_same_bytes(name, dtype):
    recipe, samples = load_recipe(name), picture(280, 300, dtype=dtype)
    for patch in range(4):
        pair = made(recipe, samples, patch=patch)
        plain = json.loads(json.dumps(pair.parameters, allow_nan=False))
        assert "margin" in plain or recipe.degrade(pair.clean, plain).tobytes() == pair.degraded.tobytes()
        assert same(recipe.replay(samples, plain), pair)


@pytest.mark.parametrize("name", SHIPPED)
def test_patch_7_alone_is_patch_7_of_a_run(name):
    recipe, samples = load_recipe(name), picture(280, 300)
    run = [pair for pair in recipe.pairs(samples, key="a", seed=1, per_image=10) if isinstance(pair, Pair)]
    assert [pair.patch for pair in run] == list(range(10))
    assert same(run[7], made(recipe, samples, patch=7))


def test_pictures_may_come_in_any_order():
    recipe = load_recipe("noise-zoo")
    pictures = {key: np.rot90(picture(), turns) for turns, key in enumerate("abcd")}
    jobs = [(key, patch) for key in pictures for patch in range(3)]
    in_order = {job: made(recipe, pictures[job[0]], *job) for job in jobs}
    random.Random(3).shuffle(jobs)
    assert all(same(made(recipe, pictures[job[0]], *job), in_order[job]) for job in jobs)


@pytest.mark.parametrize("changed", [{"seed": 2}, {"key": "b"}, {"patch": 1}])
def test_another_seed_key_or_patch_gives_another_pair(changed):
    recipe, samples = load_recipe("dncnn-25"), picture()
    one, other = made(recipe, samples), made(recipe, samples, **changed)
    assert one.clean.tobytes() != other.clean.tobytes()
    assert (one.degraded - one.clean).tobytes() != (other.degraded - other.clean).tobytes()


def test_another_way_of_cutting_leaves_the_draw_of_the_degradation_as_it_is():
    recipe, samples = load_recipe("dncnn-blind"), picture()
    patch, larger = made(recipe, samples), made(recipe, samples, size=64)
    assert larger.clean.shape == (64, 64, 1)
    assert patch.parameters["degradation"] == larger.parameters["degradation"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_survives_pickling(name):
    recipe = load_recipe(name)
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert copy.fingerprint() == recipe.fingerprint()
    samples = picture(280, 300)
    assert same(made(copy, samples), made(recipe, samples))


# --- cutting --------------------------------------------------------------------------------------------------------


def test_without_patches_the_whole_picture_is_taken():
    pair = made(load_recipe("gaussian-25"), picture(33, 50))
    np.testing.assert_array_equal(pair.clean, to_float(picture(33, 50)))
    assert pair.parameters["cut"] == {"top": 0, "left": 0, "height": 33, "width": 50, "flip": False, "rotation": 0}


def test_whole_pictures_can_be_cut_after_all():
    pairs = list(load_recipe("gaussian-25").pairs(picture(), key="a", seed=1, per_image=5, size=32))
    assert [pair.clean.shape for pair in pairs if isinstance(pair, Pair)] == [(32, 32, 3)] * 5


def test_every_place_flip_and_rotation_is_equally_likely():
    recipe = Recipe("r", GaussianNoise(0), patches=Patches(8, flips=True, rotations=True))
    samples = picture(10, 11, 1)
    cuts = [made(recipe, samples, patch=patch).parameters["cut"] for patch in range(14_400)]
    places = Counter((cut["top"], cut["left"], cut["flip"], cut["rotation"]) for cut in cuts)
    assert len(places) == 3 * 4 * 2 * 4
    assert stats.chisquare(list(places.values())).pvalue > 0.01


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", range(4))
def test_a_cut_is_cropped_mirrored_and_turned_in_this_order(flip, rotation):
    image = np.arange(5 * 6, dtype=np.float32).reshape(5, 6, 1)
    cut = Cut(1, 2, 3, 4, flip, rotation)
    expected = image[1:4, 2:6]
    expected = np.fliplr(expected) if flip else expected
    expected = np.rot90(expected, rotation)
    turned = cut.turn(cut.crop(image))
    np.testing.assert_array_equal(turned, expected)
    assert Cut.from_json(json.loads(json.dumps(cut.to_json()))) == cut


def test_the_clean_patch_is_the_place_that_the_json_names():
    samples = picture()
    pair = made(Recipe("r", GaussianNoise(0.1), patches=Patches(40)), samples)
    cut = pair.parameters["cut"]
    place = samples[cut["top"] : cut["top"] + 40, cut["left"] : cut["left"] + 40]
    np.testing.assert_array_equal(pair.clean, to_float(place))


@pytest.mark.parametrize(("height", "width"), [(39, 200), (200, 39)])
def test_a_picture_smaller_than_the_patch_is_one_rejection_with_its_reason(height, width):
    rejections = list(load_recipe("dncnn-25").pairs(picture(height, width), key="a", seed=1))
    assert rejections == [
        Rejection(0, "too_small", f"the picture's {width}x{height} pixels hold no patch of 40x40", {"too_small": 1})
    ]


def test_a_picture_of_exactly_the_patch_is_taken():
    assert made(load_recipe("dncnn-25"), picture(40, 40)).clean.shape == (40, 40, 1)


def test_flat_places_are_drawn_again():
    samples = np.full((64, 64, 1), 100, np.uint8)
    samples[:, 32:] = picture(64, 32, 1)
    recipe = Recipe("r", GaussianNoise(0.1), patches=Patches(16, minimum_std=0.01, attempts=50))
    lefts = [made(recipe, samples, patch=patch).parameters["cut"]["left"] for patch in range(50)]
    assert min(lefts) > 16
    anywhere = Recipe("r", GaussianNoise(0.1), patches=Patches(16))
    assert min(made(anywhere, samples, patch=patch).parameters["cut"]["left"] for patch in range(50)) <= 16


def test_a_flat_picture_is_rejected_with_its_reason():
    recipe = Recipe("r", GaussianNoise(0.1), patches=Patches(16, per_image=3, minimum_std=0.01))
    rejections = list(recipe.pairs(np.full((64, 64, 3), [10, 200, 30], np.uint8), key="a", seed=1))
    assert [each.patch for each in rejections] == [0, 1, 2]
    assert {each.reason for each in rejections if isinstance(each, Rejection)} == {"flat"}


def test_a_chain_that_draws_nothing_still_gives_two_pictures():
    samples = picture(dtype="float32")
    pair = made(Recipe("r", Maybe(RoundTo8Bit(), 0)), samples)
    np.testing.assert_array_equal(pair.degraded, pair.clean)
    assert not np.shares_memory(pair.degraded, pair.clean)


# --- channels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "given", "expected"),
    [("as_is", 1, 1), ("as_is", 3, 3), ("gray", 1, 1), ("gray", 3, 1), ("rgb", 1, 3), ("rgb", 3, 3)],
)
def test_channels_of_the_clean_picture(channels, given, expected):
    pair = made(Recipe("r", GaussianNoise(0.1), channels=channels), picture(channels=given))
    assert pair.clean.shape[2] == pair.degraded.shape[2] == expected


def test_gray_is_full_swing_luma_and_neutral_grey_stays():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [77, 77, 77]]], np.uint8)
    assert with_channels(colours, "gray").ravel().tolist() == [76, 150, 29, 255, 77]  # MATLAB: rgb2gray
    assert with_channels(colours.astype(np.uint16) * 257, "gray").ravel()[3:].tolist() == [65535, 77 * 257]
    np.testing.assert_allclose(with_channels(to_float(colours), "gray").ravel()[3:], [1, 77 / 255], atol=1e-6)


@pytest.mark.data
def test_gray_makes_bsd68_of_cbsd68_without_a_differing_sample(data_dir):
    image = pytest.importorskip("PIL.Image")
    names = (data_dir / "CBSD68_ids.txt").read_text().split()
    for number, name in list(enumerate(names, start=1))[::10]:
        colour = np.asarray(image.open(data_dir / "BSD100" / f"{name}.jpg").convert("RGB"))
        grey = np.asarray(image.open(data_dir / "BSD68" / f"test{number:03d}.png"))
        np.testing.assert_array_equal(with_channels(colour, "gray")[..., 0], grey)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (8, 8, 4)])
def test_samples_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="expected H x W x 1 or H x W x 3"):
        load_recipe("gaussian-25").pair(np.zeros(shape, np.uint8), key="a", patch=0, seed=1)


# --- identity -------------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_what_decides_the_bytes_and_nothing_else():
    base = Recipe("one", GaussianNoise(1), patches=Patches(40))
    same_bytes = [
        Recipe("two", GaussianNoise(1.0), "text", "paper", patches=Patches(40)),
        Recipe("one", GaussianNoise(1), channels="as_is", patches=Patches(40, minimum_std=0)),
    ]
    others = [
        Recipe("one", GaussianNoise(0.5), patches=Patches(40)),
        Recipe("one", GaussianNoise(1), patches=Patches(41)),
        Recipe("one", GaussianNoise(1)),
        Recipe("one", GaussianNoise(1), patches=Patches(40), channels="gray"),
        Recipe("one", GaussianNoise(1), patches=Patches(40), store="npy"),
        Recipe("one", Maybe(GaussianNoise(1), 1), patches=Patches(40)),
    ]
    assert {each.fingerprint() for each in same_bytes} == {base.fingerprint()}
    assert len({each.fingerprint() for each in [base, *others]}) == 1 + len(others)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_written_as_json_is_read_back_as_it_was(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "another.json"
    path.write_text(json.dumps(recipe.to_json()))
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patches(0), "patches: size: expected a whole number of at least 1, got 0"),
        (lambda: Patches(8, minimum_std=0.6), "patches: minimum_std: expected a number from 0 to 0.5, got 0.6"),
        (lambda: Recipe("r", RoundTo8Bit(), channels="grey"), "channels: 'grey' is not one of"),
        (lambda: Recipe("r", RoundTo8Bit(), store="jpg"), "store: 'jpg' is not one of"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_when_it_is_made(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# --- what is not taken ------------------------------------------------------------------------------------------------


def test_blurred_places_are_drawn_again_and_counted():
    sharp = picture(80, 160)
    blurred = np.repeat(np.linspace(0, 255, 80).astype(np.uint8)[:, None, None], 160, axis=1).repeat(
        sharp.shape[2], axis=2
    )
    half = np.concatenate([sharp, blurred], axis=1)
    recipe = Recipe("a", GaussianNoise(0.1), patches=Patches(32, per_image=20, minimum_sharpness=0.05, attempts=30))
    pairs = list(recipe.pairs(half, key="a", seed=1))
    assert all(isinstance(pair, Pair) and pair.parameters["cut"]["left"] < 160 for pair in pairs)
    assert sum(pair.rejected["blurred"] for pair in pairs if pair.rejected) > 5


def test_a_patch_that_looks_like_an_earlier_one_is_left_out_whichever_patches_are_asked_for():
    recipe = Recipe("a", GaussianNoise(0.1), patches=Patches(60, per_image=40, minimum_hash_distance=16))
    made = list(recipe.pairs(picture(70, 90), key="a", seed=1))
    duplicates = [each.patch for each in made if isinstance(each, Rejection)]
    assert {each.reason for each in made if isinstance(each, Rejection)} == {"duplicate"}
    assert 5 < len(duplicates) < 40
    asked = [duplicates[-1], next(each.patch for each in reversed(made) if isinstance(each, Pair))]
    some = list(recipe.pairs(picture(70, 90), key="a", seed=1, patches=asked))
    assert {each.patch for each in some if isinstance(each, Rejection)} == {duplicates[-1]}
    whole = {each.patch: each for each in made}
    assert all(
        each.degraded.tobytes() == whole[each.patch].degraded.tobytes() for each in some if isinstance(each, Pair)
    )


def test_a_flat_patch_has_no_difference_and_a_mirrored_ramp_has_all():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :, None].repeat(64, axis=0)
    assert difference_hash(ramp) == 0
    assert difference_hash(ramp[:, ::-1]) == 2**64 - 1


def test_whole_pictures_lose_what_is_no_multiple():
    recipe = Recipe("a", GaussianNoise(0.1), crop_to_multiple=3)
    pair = recipe.pair(picture(41, 50), key="a", patch=0, seed=1)
    assert isinstance(pair, Pair)
    assert pair.clean.shape[:2] == (39, 48)
    with pytest.raises(ConfigurationError, match="no multiple of crop_to_multiple 3"):
        Recipe("a", GaussianNoise(0.1), patches=Patches(40), crop_to_multiple=3)


def test_luma_is_the_one_that_super_resolution_is_measured_on():
    colour = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [12, 200, 77]]], np.uint8)
    assert with_channels(colour, "luma")[0, :, 0].tolist() == [235, 16, 81, 127]  # MATLAB's rgb2ycbcr
    gray = colour[..., :1]
    assert with_channels(gray, "luma") is gray


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", ["text-deblur", "bsrgan", "motion-patches", "deconvolution"])
def test_pairs_that_are_made_together_are_those_that_are_made_alone(name, dtype, monkeypatch):
    """Blocks of several pairs, from a picture that is converted as a whole; one by one, from the places alone."""
    monkeypatch.setattr("models.recipes.recipe._TOGETHER_BYTES", 200_000)
    recipe, samples = load_recipe(name), picture(dtype=dtype)
    together = list(recipe.pairs(samples, key="a", seed=1, per_image=15, size=64))
    assert [each.patch for each in together] == list(range(15))
    for each in together:
        assert isinstance(each, Pair)
        assert same(each, made(recipe, samples, patch=each.patch, size=64))


def test_pairs_and_rejections_come_in_order_and_are_made_when_they_are_asked_for():
    recipe = load_recipe("text-deblur")
    samples = picture()
    samples[:, :90] = 128  # flat: a patch of 32 is rejected unless it reaches beyond
    found = list(recipe.pairs(samples, key="a", seed=1, per_image=60, size=32))
    assert [each.patch for each in found] == list(range(60))
    assert {type(each) for each in found} <= {Pair, Rejection}
    assert next(recipe.pairs(samples, key="a", seed=1, per_image=1_000_000, size=32)).patch == 0


@pytest.mark.parametrize(("last", "expected"), [(RoundTo8Bit(), "uint8"), (GaussianNoise(0.1), "float32")])
def test_pictures_that_end_in_8_bit_may_come_as_integers_of_the_same_values(last, expected):
    recipe = Recipe("test", InOrder((GaussianNoise(0.3), last)), patches=Patches(40))
    integers = list(recipe.pairs(picture(), key="a", seed=1, per_image=5, eight_bit=True))
    floats = list(recipe.pairs(picture(), key="a", seed=1, per_image=5))
    for one, other in zip(integers, floats, strict=True):
        assert isinstance(one, Pair)
        assert isinstance(other, Pair)
        assert one.degraded.dtype == expected
        assert to_float(one.degraded).tobytes() == other.degraded.tobytes()
        assert one.parameters == other.parameters


def test_variants_share_the_clean_picture_and_nothing_else():
    recipe = load_recipe("dncnn-blind")
    several = [
        each for each in recipe.pairs(picture(), key="a", seed=1, per_image=3, variants=4) if isinstance(each, Pair)
    ]
    assert [(each.patch, each.variant) for each in several] == [(p, v) for p in range(3) for v in range(4)]
    assert len({each.clean.tobytes() for each in several}) == 3
    assert len({each.degraded.tobytes() for each in several}) == 12
    assert same(several[4], made(recipe, picture(), patch=1))


def test_a_margin_is_degraded_and_cut_off_from_both_pictures_and_their_arrays():
    samples = picture(90, 100)
    blur = GaussianBlur(sigma=2.0, size=13)
    recipe = Recipe("a", blur, patches=Patches(32, per_image=3, rotations=True, margin=6), arrays=("kernel",))
    whole = np.moveaxis(
        blur.apply(np.moveaxis(to_float(samples), 2, 0), blur.sample(generator(1, "a"), samples.shape)), 0, 2
    )
    for pair in recipe.pairs(samples, key="a", seed=1):
        assert isinstance(pair, Pair)
        assert pair.clean.shape == pair.degraded.shape == (32, 32, 3)
        cut = Cut.from_json(pair.parameters["cut"])
        assert cut.height == 44
        inside = cut.turn(cut.crop(whole))[6:-6, 6:-6]
        np.testing.assert_allclose(pair.degraded, inside, atol=2e-5)  # as if the whole picture had been blurred
        assert pair.arrays["kernel"].shape == (13, 13)
        assert same(recipe.replay(samples, json.loads(json.dumps(pair.parameters))), pair)


def test_a_margin_shrinks_with_the_degraded_picture_or_is_refused():
    smaller = Recipe("a", Resize(scale=0.25), patches=Patches(32, margin=8))
    pair = made(smaller, picture())
    assert (pair.clean.shape, pair.degraded.shape) == ((32, 32, 3), (8, 8, 3))
    with pytest.raises(ConfigurationError, match="margin of 6 pixels is no whole number"):
        made(Recipe("a", Resize(scale=0.25), patches=Patches(32, margin=6)), picture())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_head_of_a_shipped_recipe_gives_its_command_and_its_rate(name):
    head = (FOLDER / f"{name}.yaml").read_text("utf-8").partition("kind:")[0]
    assert f"conservator degrade --recipe {name} " in head
    assert re.search(r"# Rate: [\d,]+ \w+/s", head)
