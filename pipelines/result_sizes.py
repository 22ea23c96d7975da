"""Whether the degraded pictures of a recipe have one size, which shards of one column type need, found out by drawing."""

from __future__ import annotations

from collections import defaultdict

from models.degradation import Operator, Shape, draw_steps, operator_class
from models.degradation.chains import DrawnStep, operators_of
from models.recipes import Recipe
from transforms.errors import ConfigurationError, RecordError
from transforms.randomness import generator

DRAWS = 300  # a tenth of a millisecond each; a step that happens once in a hundred times is missed once in twenty runs


def refuse_drawn_sizes(recipe: Recipe, size: int, seed: int) -> None:
    """Raises ConfigurationError if patches of `size` pixels come out in several shapes; it names the step that draws them.

    Nothing is degraded: the steps are drawn, and tell their shapes.
    """
    if not any(type(each).output_shape is not Operator.output_shape for each in operators_of(recipe.degradation)):
        return
    patch: Shape = (size, size, 1 if recipe.channels in ("gray", "luma") else 3)
    results: set[Shape] = set()
    made: defaultdict[int, defaultdict[Shape, set[Shape]]] = defaultdict(lambda: defaultdict(set))
    times_drawn: defaultdict[int, int] = defaultdict(int)
    for number in range(DRAWS):
        shape = patch
        try:
            steps = draw_steps(recipe.degradation, generator(seed, "sizes", number), patch)
            for step in steps:
                ((name, parameters),) = step.items()
                before, shape = shape, operator_class(name).output_shape(shape, parameters)
                operator = id(step.drawn_by) if isinstance(step, DrawnStep) else 0
                made[operator][before].add(shape)
                times_drawn[operator] += 1
        except (RecordError, ValueError):
            continue  # no pair comes of it, and so no size
        results.add(shape)
    if len(results) < 2:
        return
    blamed = recipe.degradation.name
    for each in operators_of(recipe.degradation):
        afters = made[id(each)]
        is_random = any(len(shapes) > 1 for shapes in afters.values())
        is_missing = times_drawn[id(each)] < DRAWS and any(shapes != {before} for before, shapes in afters.items())
        if is_random or is_missing:
            blamed = each.name  # the last one: what earlier steps draw, later ones may bring back to one size
    smallest, largest = min(results), max(results)
    raise ConfigurationError(
        f"--output_format arrow needs degraded pictures of one size, and recipe {recipe.name!r} draws them: {blamed!r} gives "
        f"{_spelt(smallest)} and {_spelt(largest)}, height x width x channels, of patches of {_spelt(patch)}; "
        "write parquet or tar, or give that step one size"
    )


def _spelt(shape: Shape) -> str:
    return "x".join(map(str, shape))
