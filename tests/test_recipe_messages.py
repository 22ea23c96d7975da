"""Wrong recipes: every mistake with its file and line; and the published schema agrees with the validator."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import fsspec
import jsonschema
import pytest
import yaml

from models.degradation import OPERATORS, LogUniform, Maybe, OneOf, UniformQuantisation
from models.degradation.chains import InOrder
from models.recipes import load_recipe, shipped_recipes
from models.recipes.loader import FOLDER, SCHEMA_FILE, recipe_schema
from models.recipes.recipe import Recipe
from models.recipes.validation import Field, Number, Section, Text, Variant, read_text
from transforms.errors import ConfigurationError

HEAD = "kind: degradation\ndescription: d\nsource: s\n"


def load(tmp_path, text: str) -> Recipe:
    path = tmp_path / "file.yaml"
    path.write_text(textwrap.dedent(text))
    return load_recipe(str(path))


def message_of(tmp_path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def body(text: str) -> str:
    return HEAD + textwrap.dedent(text).lstrip("\n")


# (what is wrong, the text from line 4 on, the message, whether a JSON schema can see it)
CHAINS = ("sequence", "shuffle", "one_of", "composed_blur", "maybe")
STEPS = ", ".join(repr(name) for name in dict.fromkeys((*OPERATORS, *CHAINS)))
WRONG = [
    (
        "misspelt parameter",
        """
        degradation:
          sequence:
            - round_to_8bit
            - gaussian_noise:
                sigm: 0.1
                sigma: 0.1
        """,
        "file.yaml:8: degradation.sequence[1].gaussian_noise: unknown key 'sigm'; did you mean 'sigma'?",
        True,
    ),
    (
        "missing parameter",
        """
        degradation:
          sequence:
            - round_to_8bit
            - gaussian_noise: {}
        """,
        "file.yaml:7: degradation.sequence[1].gaussian_noise: missing key 'sigma' (standard deviation; white is 1, "
        "so 25/255 is the usual 25)",
        True,
    ),
    (
        "misspelt operator",
        "degradation:\n  gausian_noise: {sigma: 0.1}\n",
        "file.yaml:5: degradation: expected one operator or chain, got 'gausian_noise'; did you mean 'gaussian_noise'?",
        True,
    ),
    (
        "operator that is nothing like one",
        "degradation: {xyzzy: 1}\n",
        f"file.yaml:4: degradation: expected one operator or chain, got 'xyzzy'; known are {STEPS}",
        True,
    ),
    (
        "two operators in one step",
        """
        degradation:
          gaussian_noise: {sigma: 0.1}
          round_to_8bit: {}
        """,
        "file.yaml:5: degradation: expected one operator or chain, got 'gaussian_noise' and 'round_to_8bit'",
        True,
    ),
    (
        "bare name that needs settings",
        "degradation:\n  sequence:\n    - gaussian_noise\n",
        "file.yaml:6: degradation.sequence[0]: 'gaussian_noise' cannot stand alone; write gaussian_noise: with its "
        "settings",
        True,
    ),
    (
        "misspelt bare name",
        "degradation:\n  sequence:\n    - round_to_8bits\n",
        "file.yaml:6: degradation.sequence[0]: expected one operator or chain, got 'round_to_8bits'; did you mean "
        "'round_to_8bit'?",
        True,
    ),
    (
        "setting of an operator that has none",
        "degradation: {round_to_8bit: {bits: 8}}\n",
        "file.yaml:4: degradation.round_to_8bit: unknown key 'bits'; none is known here",
        True,
    ),
    (
        "operator with a number in place of its settings",
        "degradation:\n  gaussian_noise: 0.1\n",
        "file.yaml:5: degradation.gaussian_noise: expected a mapping, got '0.1'",
        True,
    ),
    (
        "number out of bounds",
        "degradation:\n  gaussian_noise:\n    sigma: -0.1\n",
        "file.yaml:6: degradation.gaussian_noise.sigma: expected a number of at least 0, got -0.1",
        True,
    ),
    (
        "fraction out of bounds",
        "degradation: {impulse_noise: {density: 256/255}}\n",
        "file.yaml:4: degradation.impulse_noise.density: expected a number from 0 to 1, got 1.00392156863",
        False,
    ),
    (
        "division by zero",
        "degradation: {gaussian_noise: {sigma: 25/0}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: expected a number of at least 0, got '25/0'",
        False,
    ),
    (
        "infinity",
        "degradation: {gaussian_noise: {sigma: .inf}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: expected a number of at least 0, got '.inf'",
        False,
    ),
    (
        "text in place of a number",
        "degradation: {gaussian_noise: {sigma: much}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: expected a number of at least 0, got 'much'",
        True,
    ),
    (
        "number that YAML would read as octal",
        "degradation: {uniform_quantisation: {levels: 010}}\n",
        "file.yaml:4: degradation.uniform_quantisation.levels: expected a whole number from 2 to 65536, got '010'",
        False,
    ),
    (
        "fractional number of levels",
        "degradation: {uniform_quantisation: {levels: {choice: [5, 8.5]}}}\n",
        "file.yaml:4: degradation.uniform_quantisation.levels.choice[1]: expected a whole number from 2 to 65536, "
        "got '8.5'",
        True,
    ),
    (
        "huge number of levels",
        f"degradation: {{uniform_quantisation: {{levels: 1{'0' * 400}}}}}\n",
        "file.yaml:4: degradation.uniform_quantisation.levels: expected a whole number from 2 to 65536, "
        f"got '1{'0' * 400}'",
        True,
    ),
    (
        "distribution that runs backwards",
        """
        degradation:
          gaussian_noise:
            sigma:
              uniform: [0.2, 0.1]
        """,
        "file.yaml:6: degradation.gaussian_noise.sigma: uniform: [0.2, 0.1] runs backwards; write the smaller bound "
        "first",
        False,
    ),
    (
        "log-uniform from zero",
        "degradation: {gaussian_noise: {sigma: {log_uniform: [0, 1]}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: log_uniform: [0.0, 1.0] needs 0 < smaller bound "
        "<= greater bound",
        False,
    ),
    (
        "three bounds",
        "degradation: {gaussian_noise: {sigma: {uniform: [0, 1, 2]}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma.uniform: expected a list of 2 values, got 3",
        True,
    ),
    (
        "bound out of bounds",
        """
        degradation:
          impulse_noise:
            density:
              uniform:
                - 0
                - 1.5
        """,
        "file.yaml:9: degradation.impulse_noise.density.uniform[1]: expected a number from 0 to 1, got 1.5",
        True,
    ),
    (
        "misspelt distribution",
        "degradation: {gaussian_noise: {sigma: {unifrom: [0, 1]}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: expected one distribution, got 'unifrom'; did you "
        "mean 'uniform'?",
        True,
    ),
    (
        "weights without a choice",
        "degradation: {gaussian_noise: {sigma: {uniform: [0, 1], weights: [1, 2]}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: unknown key 'weights'; known are 'uniform'",
        True,
    ),
    (
        "too few weights",
        "degradation: {gaussian_noise: {sigma: {choice: [0, 1], weights: [1]}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma: 1 weights for 2 choices; write one for each",
        False,
    ),
    (
        "empty choice",
        "degradation: {gaussian_noise: {sigma: {choice: []}}}\n",
        "file.yaml:4: degradation.gaussian_noise.sigma.choice: expected a list of at least 1, got 0",
        True,
    ),
    (
        "negative weight",
        """
        degradation:
          one_of:
            - round_to_8bit
            - weight: -1
              gaussian_noise: {sigma: 0.1}
        """,
        "file.yaml:7: degradation.one_of[1].weight: expected a number of at least 0, got -1",
        True,
    ),
    (
        "weights that are all zero",
        """
        degradation:
          one_of:
            - {weight: 0, round_to_8bit: {}}
        """,
        "file.yaml:5: degradation.one_of: weights [0.0] must be finite, not negative, and not all 0",
        False,
    ),
    (
        "weight outside a choice",
        "degradation: {sequence: [{weight: 1, round_to_8bit: {}}]}\n",
        "file.yaml:4: degradation.sequence[0]: unknown key 'weight'; known are 'round_to_8bit'",
        True,
    ),
    (
        "maybe without a probability",
        "degradation: {maybe: {round_to_8bit: {}}}\n",
        "file.yaml:4: degradation.maybe: missing key 'probability' (of the step happening)",
        True,
    ),
    (
        "probability beyond one",
        "degradation: {maybe: {probability: 2, round_to_8bit: {}}}\n",
        "file.yaml:4: degradation.maybe.probability: expected a number from 0 to 1, got 2",
        True,
    ),
    (
        "empty sequence",
        "degradation: {sequence: []}\n",
        "file.yaml:4: degradation.sequence: expected a list of at least 1, got 0",
        True,
    ),
    (
        "sequence without a list",
        "degradation: {sequence: {round_to_8bit: {}}}\n",
        "file.yaml:4: degradation.sequence: expected a list, got a mapping",
        True,
    ),
    (
        "empty step",
        "degradation: {sequence: [{}]}\n",
        "file.yaml:4: degradation.sequence[0]: expected one operator or chain, got an empty mapping; known are "
        + STEPS,
        True,
    ),
    (
        "misspelt top key",
        "degradation: round_to_8bit\nchanels: gray\n",
        "file.yaml:5: unknown key 'chanels'; did you mean 'channels'?",
        True,
    ),
    (
        "other channels",
        "degradation: round_to_8bit\nchannels: grey\n",
        "file.yaml:5: channels: expected 'as_is' or 'gray' or 'luma' or 'rgb', got 'grey'; did you mean 'gray'?",
        True,
    ),
    (
        "other store",
        "degradation: round_to_8bit\nstore: jpg\n",
        "file.yaml:5: store: expected 'png' or 'npy', got 'jpg'; did you mean 'png'?",
        True,
    ),
    (
        "no degradation",
        "store: png\n",
        "file.yaml:1: missing key 'degradation' (one operator or chain)",
        True,
    ),
    (
        "patches without a size",
        "degradation: round_to_8bit\npatches:\n  flips: true\n",
        "file.yaml:5: patches: missing key 'size' (side of the square in pixels)",
        True,
    ),
    (
        "patch of no pixels",
        "degradation: round_to_8bit\npatches:\n  per_image: 3\n  size: 0\n",
        "file.yaml:7: patches.size: expected a whole number of at least 1, got 0",
        True,
    ),
    (
        "yes in place of true",
        "degradation: round_to_8bit\npatches: {size: 8, flips: 'yes'}\n",
        "file.yaml:5: patches.flips: expected true or false, got 'yes'",
        True,
    ),
    (
        "number as description",
        "name: 12\ndegradation: round_to_8bit\n",
        "file.yaml:4: name: expected text, got '12'; put quotes around it if it is text",
        True,
    ),
    (
        "empty name",
        "name: ''\ndegradation: round_to_8bit\n",
        "file.yaml:4: name: expected text, got nothing",
        True,
    ),
    (
        "key without a value",
        "degradation:\n",
        "file.yaml:4: degradation: expected one operator or chain, got nothing",
        True,
    ),
    (
        "duplicate key",
        "degradation:\n  gaussian_noise:\n    sigma: 0.1\n    sigma: 0.2\n",
        "file.yaml:7: degradation.gaussian_noise: duplicate key 'sigma'; it stands in line 6 already",
        False,
    ),
    (
        "duplicate top key",
        "degradation: round_to_8bit\nsource: t\n",
        "file.yaml:5: duplicate key 'source'; it stands in line 3 already",
        False,
    ),
    (
        "list as key",
        "degradation: {[1, 2]: 3}\n",
        "file.yaml:4: degradation: expected a word as key, got a list",
        False,
    ),
    (
        "anchor",
        "name: &name text\ndegradation: round_to_8bit\n",
        "file.yaml:4: anchors and aliases are not taken here; write the value out",
        False,
    ),
    (
        "tag",
        "degradation: !!python/object/apply:os.system ['true']\n",
        "file.yaml:4: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not taken here; leave it out",
        False,
    ),
    (
        "broken YAML",
        "degradation:\n  sequence: [\n",
        "file.yaml:6: not YAML: expected the node content, but found '<stream end>'",
        False,
    ),
    (
        "tab",
        "degradation:\n\tsequence: []\n",
        "file.yaml:5: not YAML: found character '\\t' that cannot start any token",
        False,
    ),
    (
        "control character",
        "degradation:\n  round_to_8bit: {}  # \x07\n",
        "file.yaml:5: not YAML: the character 0x7 is not allowed",
        False,
    ),
]
IDS = [each[0].replace(" ", "_") for each in WRONG]


@pytest.mark.parametrize(("text", "message"), [(text, message) for _, text, message, _ in WRONG], ids=IDS)
def test_a_mistake_is_reported_with_its_line(tmp_path, text, message):
    assert message_of(tmp_path, body(text)) == message


def test_all_mistakes_are_reported_together_in_the_order_of_the_file(tmp_path):
    text = """
        patches: {size: none, flip: true}
        degradation:
          sequence:
            - gaussian_noise: {sigma: -1}
            - impulse_noise:
                density: 2
                salt: 3
        store: jpeg
        """
    lines = message_of(tmp_path, body(text)).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"file.yaml:{n}" for n in (4, 4, 7, 9, 10, 11)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file.yaml:1: the file is empty"),
        ("# nothing\n", "file.yaml:1: the file is empty"),
        ("- a\n- b\n", "file.yaml:1: expected a mapping, got a list"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2: not YAML: but found another document"),
        ("[" * 2000, "file.yaml:1: nested too deeply"),
    ],
)
def test_a_file_that_is_no_recipe_at_all(tmp_path, text, message):
    assert message_of(tmp_path, text) == message


@pytest.mark.parametrize("depth", range(60, 400, 20))
def test_nesting_is_read_or_refused_but_never_a_crash(tmp_path, depth):
    text = body("degradation: " + "{sequence: [" * depth + "round_to_8bit" + "]}" * depth)
    try:
        assert load(tmp_path, text).degradation.name == "sequence"
    except ConfigurationError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017 - either outcome is right


def test_every_missing_head_key_is_named(tmp_path):
    lines = message_of(tmp_path, "degradation: round_to_8bit\n").splitlines()
    assert [line.split("'")[1] for line in lines] == ["description", "kind", "source"]


def test_a_training_recipe_is_told_from_a_degradation_recipe(tmp_path):
    assert "a recipe for training" in message_of(tmp_path, "kind: training\nnetwork: dncnn\n")


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ConfigurationError, match=r"no recipe is called 'gausian-25'; did you mean 'gaussian-25'\?"):
        load_recipe("gausian-25")
    with pytest.raises(ConfigurationError, match=r"shipped are .*dncnn-25.*needs its ending: xyzzy\.yaml"):
        load_recipe("xyzzy")


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path):
    for url in (f"{tmp_path}/none.yaml", "nosuchprotocol://a/b.yaml", str(tmp_path)):
        with pytest.raises(ConfigurationError, match="cannot read the recipe"):
            load_recipe(url)
    (tmp_path / "latin.yaml").write_bytes(b"kind: \xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 6"):
        load_recipe(f"{tmp_path}/latin.yaml")


@pytest.fixture
def remote_recipe() -> Iterator[str]:
    url = "memory://recipes/mine.yaml"
    with fsspec.open(url, "w") as file:
        file.write(body("degradation: round_to_8bit\n"))
    yield url
    fsspec.filesystem("memory").rm("/recipes", recursive=True)


def test_a_recipe_is_read_from_any_url_and_named_after_its_file(remote_recipe):
    assert load_recipe(remote_recipe).name == "mine"


def test_numbers_may_be_fractions_and_need_no_dot(tmp_path):
    recipe = load(tmp_path, body("degradation: {gaussian_noise: {sigma: {choice: [25/255, 1e-2, .5, 3, '1/4']}}}\n"))
    written = recipe.to_json()["degradation"]["gaussian_noise"]["sigma"]
    assert written == {"choice": [25 / 255, 0.01, 0.5, 3.0, 0.25]}


def test_every_chain_and_distribution_is_read_as_written(tmp_path):
    text = """
        degradation:
          one_of:
            - weight: 3
              maybe:
                probability: 1/3
                uniform_quantisation: {levels: {log_uniform: [2, 64]}}
            - sequence: [round_to_8bit, round_to_8bit: {}]
        """
    degradation = load(tmp_path, body(text)).degradation
    assert isinstance(degradation, OneOf)
    assert degradation.weights == (3.0, 1.0)
    maybe, sequence = degradation.members
    assert maybe == Maybe(UniformQuantisation(LogUniform(2, 64)), 1 / 3)
    assert isinstance(sequence, InOrder)
    assert [member.name for member in sequence.members] == ["round_to_8bit", "round_to_8bit"]


# --- the published schema, checked by another implementation -------------------------------------------------------------


@pytest.fixture(scope="module")
def checker() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_up_to_date():
    assert SCHEMA_FILE.read_text() == recipe_schema(), "write it again: python -m models.recipes"


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_schema_accepts_what_ships_and_what_to_json_writes(name, checker):
    checker.validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    checker.validate(load_recipe(name).to_json())


@pytest.mark.parametrize(
    "text", [text for _, text, _, seen in WRONG if seen], ids=[i for i, e in zip(IDS, WRONG, strict=True) if e[3]]
)
def test_the_schema_rejects_what_the_validator_rejects(text, checker):
    assert not checker.is_valid(yaml.safe_load(body(text)))


# --- the machinery, for other kinds of configuration ---------------------------------------------------------------


def test_the_example_of_the_validation_module_works_as_it_says():
    adam = Section({"rate": Field(Number(above=0), "learning rate")}, dict)
    training = Section(
        {
            "name": Field(Text()),
            "optimiser": Field(Variant("an optimiser", {"adam": Section({"adam": Field(adam)}, lambda adam: adam)})),
        },
        dict,
    )
    good = "name: n\noptimiser:\n  adam: {rate: 1e-3}\n"
    assert read_text(good, "my.yaml", training) == {"name": "n", "optimiser": {"rate": 0.001}}
    with pytest.raises(ConfigurationError) as caught:
        read_text(good.replace("rate", "rte"), "my.yaml", training)
    assert str(caught.value).splitlines() == [
        "my.yaml:3: optimiser.adam: missing key 'rate' (learning rate)",
        "my.yaml:3: optimiser.adam: unknown key 'rte'; did you mean 'rate'?",
    ]
