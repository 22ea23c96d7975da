"""`conservator preview`: what a recipe does to a picture, as a contact sheet with the drawn parameters."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.degradation import InOrder, Step, arrays_of
from models.degradation.short_form import short_form
from models.recipes import Pair, Recipe, load_recipe, shipped_recipes
from pipelines.example_pictures import example_folder
from pipelines.options import PreviewOptions
from transforms.contact_sheet import LARGEST_SIDE, Cell, Layout, Section, draw_sheet, kernel_inset, motion_inset
from transforms.errors import ConfigurationError, RecordError
from transforms.formats.indexed import index_records
from transforms.pictures import decode
from transforms.record import extension, source_field
from transforms.storage import OutputStore
from transforms.value_range import Samples

ALL = "all"
PLACES = 16  # that are looked at before the one with most contrast is taken
SIDE_ALONE, SIDE_AMONG_OTHERS = 256, 192
LARGEST_PATCH_AMONG_OTHERS = 96  # noise takes many bytes
WIDEST = 1600  # of a sheet of several recipes
COLOURS = 192  # of such a sheet as PNG: a third of the bytes, and the eye sees no difference
CAPTION_LINES_AMONG_OTHERS = 14
MOST_CELLS = 144  # of all recipes together: some seconds, and a sheet that a viewer still opens
LONGEST_SIDES = {"WEBP": 16383, "JPEG": 65500}  # of what these formats hold, in pixels
_ENDINGS = {"png": "PNG", "webp": "WEBP", "jpg": "JPEG", "jpeg": "JPEG"}


@dataclass(frozen=True)
class Example:
    """A picture of the scikit-image wheel.

    Attributes:
        centre: of what is worth looking at, in pixels from the left and from the top.
        span: side of it; smaller patches get it reduced. 0: never reduced, so that letters keep their size.
    """

    name: str
    centre: tuple[int, int]
    span: int

    def cut(self, samples: Samples, size: int) -> Samples:
        """A square of `size` pixels, less only where the picture is smaller."""
        side = min(max(self.span, size), *samples.shape[:2])
        left, top = (
            min(max(middle - side // 2, 0), length - side)
            for middle, length in zip(self.centre, samples.shape[1::-1], strict=True)
        )
        square = samples[top : top + side, left : left + side]
        if side <= size:
            return square
        reduced = Image.fromarray(square[:, :, 0] if square.shape[2] == 1 else square).resize((size, size), REDUCTION)
        return np.asarray(reduced).reshape(size, size, -1)


PHOTOGRAPH, DOCUMENT = Example("astronaut.png", (226, 95), 192), Example("page.png", (335, 92), 0)
DOCUMENT_WORDS = ("text", "document")  # in the name of a recipe that is made for pages
REDUCTION = Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Source:
    """A picture to degrade, what it is called, and whether it is one of ours."""

    name: str
    samples: Samples
    example: Example | None

    @property
    def key(self) -> str:
        return PurePosixPath(self.name).stem


def show_preview(options: PreviewOptions) -> int:
    """Draws the sheet and writes it.

    Raises:
        ConfigurationError: unknown recipe, no picture, an output of another type, a patch that does not fit, too many cells.
    """
    kind = _ENDINGS.get(extension(options.output))
    if kind is None:
        raise ConfigurationError(f"--output {options.output!r}: a sheet is written as .png, .webp or .jpg; name one")
    names = shipped_recipes() if options.recipe == ALL else [name.strip() for name in options.recipe.split(",")]
    recipes = [load_recipe(name) for name in names]
    sheet = draw_sheet(*_sections(recipes, options))
    longest = LONGEST_SIDES.get(kind, max(sheet.size))
    if max(sheet.size) > longest:
        raise ConfigurationError(
            f"the sheet has {sheet.width}x{sheet.height} pixels, {kind} holds {longest} a side: "
            "set smaller --columns or --rows, or write a .png"
        )
    folder, _, name = options.output.rpartition("/")
    OutputStore(folder or ".").write(name, encode_sheet(sheet, kind, few_colours=len(recipes) > 1))
    print(
        f"{options.output}: {len(recipes)} {'recipe' if len(recipes) == 1 else 'recipes'}, {sheet.width}x{sheet.height}"
    )
    return 0


def encode_sheet(sheet: Image.Image, kind: str, *, few_colours: bool = False) -> bytes:
    """The file of a sheet; as PNG it is lossless, or has few colours, since noise takes many bytes."""
    buffer = io.BytesIO()
    if kind == "PNG" and few_colours:
        sampled = sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST)
        palette = sampled.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        sheet = sheet.quantize(palette=palette, dither=Image.Dither.NONE)
    settings: dict[str, Any] = {"quality": 90}
    if kind == "PNG":  # optimising takes ten times as long, and saves a hundredth of a sheet of all colours
        settings = {"optimize": True} if few_colours else {"compress_level": 6}
    sheet.save(buffer, kind, **settings)
    return buffer.getvalue()


def _sections(recipes: Sequence[Recipe], options: PreviewOptions) -> tuple[list[Section], Layout]:
    is_alone = len(recipes) == 1
    layout = Layout(
        columns=options.columns or (4 if is_alone else 3),
        side=SIDE_ALONE if is_alone else SIDE_AMONG_OTHERS,
        widest=0 if is_alone else WIDEST,
        caption_lines=0 if is_alone else CAPTION_LINES_AMONG_OTHERS,
    )
    rows = options.rows or (3 if is_alone else 1)
    cells = layout.columns * rows
    if cells * len(recipes) > MOST_CELLS:
        recipes_too = "" if is_alone else f" for each of {len(recipes)} recipes"
        raise ConfigurationError(
            f"{layout.columns} columns x {rows} rows{recipes_too} are {cells * len(recipes)} pictures, a sheet holds "
            f"{MOST_CELLS}: set smaller --columns or --rows{'' if is_alone else ', or name fewer recipes'}"
        )
    examples = {recipe.name: _example_for(recipe) for recipe in recipes}
    sources = {example: read_source(options.input, example) for example in dict.fromkeys(examples.values())}
    return [_section(each, sources[examples[each.name]], cells, layout, options) for each in recipes], layout


def _example_for(recipe: Recipe) -> Example:
    return DOCUMENT if any(word in recipe.name for word in DOCUMENT_WORDS) else PHOTOGRAPH


def read_source(patterns: str, example: Example) -> Source:
    """The first picture of an input; an example from the scikit-image wheel where no input is named.

    Raises:
        ConfigurationError: no picture there, or one that can't be read.
    """
    url = patterns or str(example_folder() / example.name)
    try:
        part, number = index_records([url]).at(0)
        record = part.read(number)
        field = source_field(record.fields)
        samples = decode(record.fields[field], field).samples
    except (RecordError, IndexError) as error:
        raise ConfigurationError(f"--input {url!r}: no picture to degrade: {error}") from error
    return Source(record.name or f"{record.key}.{field}", samples, None if patterns else example)


def _section(recipe: Recipe, source: Source, cells: int, layout: Layout, options: PreviewOptions) -> Section:
    clean = clean_picture(recipe, source, options, layout.side)
    height, width = clean.shape[:2]
    drawn = [Cell(clean, f"clean · {width} x {height}")]
    whole = replace(recipe, patches=None)
    for number in range(1, cells):
        made = whole.pair(clean, key=source.key, patch=number, seed=options.seed)
        if not isinstance(made, Pair):
            raise ConfigurationError(f"recipe {recipe.name!r} makes no pair of {source.name!r}: {made.detail}")
        drawn.append(degraded_cell(made, number))
    seen = f"{width} x {height} pixels of {source.name}"
    factor = layout.side // max(height, width)
    if factor > 1:
        seen += f", shown {factor} times as large"
    notes = (recipe.description, seen) if layout.caption_lines == 0 else (recipe.description,)
    return Section(recipe.name, f"seed {options.seed}", tuple(note for note in notes if note), tuple(drawn))


def clean_picture(recipe: Recipe, source: Source, options: PreviewOptions, side: int) -> Samples:
    """What all cells of a recipe start from: of some patches that it would cut, the one with most detail.

    Raises:
        ConfigurationError: the recipe rejects all of them.
    """
    height, width = source.samples.shape[:2]
    if min(height, width) < recipe.crop_to_multiple:
        raise ConfigurationError(
            f"the picture {source.name!r} has {width}x{height} pixels, recipe {recipe.name!r} needs at least "
            f"{recipe.crop_to_multiple} a side; choose a larger picture"
        )
    size = options.patch_size or _patch_size(recipe, source.samples, side)
    cutter = replace(recipe, degradation=InOrder(()))
    if options.whole or source.example:
        samples = source.samples if options.whole or not source.example else source.example.cut(source.samples, size)
        made = [replace(cutter, patches=None).pair(samples, key=source.key, patch=0, seed=options.seed)]
    else:
        made = list(cutter.pairs(source.samples, key=source.key, seed=options.seed, per_image=PLACES, size=size))
    pairs = [each for each in made if isinstance(each, Pair)]
    if not pairs:
        reason = next((each.detail for each in made if not isinstance(each, Pair)), "no patch was drawn")
        is_small = recipe.patches is not None and min(height, width) < min(recipe.patches.size, side)
        remedy = "choose a larger picture" if is_small and not options.patch_size else "set --patch_size"
        raise ConfigurationError(
            f"recipe {recipe.name!r} cuts nothing out of {source.name!r}, which has {width}x{height} pixels: {reason}; "
            f"{remedy}, or --whole"
        )
    return max((pair.clean for pair in pairs), key=_detail)


def _detail(picture: NDArray[Any]) -> float:
    """Mean difference of neighbours: edges and texture count, a mere half of black and white does not."""
    return float(sum(np.abs(np.diff(picture, axis=axis)).mean() for axis in (0, 1) if picture.shape[axis] > 1))


def _patch_size(recipe: Recipe, samples: Samples, side: int) -> int:
    """The recipe's own size; beside other recipes not too much, and what fills the cell with whole pixels."""
    size = recipe.patches.size if recipe.patches else side
    if side == SIDE_AMONG_OTHERS:
        largest = side if recipe.crop_to_multiple > 1 else LARGEST_PATCH_AMONG_OTHERS  # room for down-sampling
        size = min(size, largest)
        if size * (side // size) < 0.9 * side:
            size = min(each for each in range(size, side + 1) if side % each == 0)
    fitting = min(size, LARGEST_SIDE, int(samples.shape[0]), int(samples.shape[1]))
    return fitting - fitting % recipe.crop_to_multiple


def degraded_cell(pair: Pair, number: int) -> Cell:
    """A degraded picture with its parameters, as large as its clean one."""
    steps = pair.parameters["degradation"]
    height, width = pair.clean.shape[:2]
    title = f"degraded {number}"
    if pair.degraded.shape[:2] != (height, width):
        title += f" · {pair.degraded.shape[1]} x {pair.degraded.shape[0]}"
    return Cell(
        pair.degraded, title, short_form(steps) or (("unchanged", ""),), tuple(_insets(pair, steps)), height, width
    )


def _insets(pair: Pair, steps: Sequence[Step]) -> Iterator[NDArray[np.uint8]]:
    height, width, channels = pair.clean.shape
    for name, array in arrays_of((height, width, channels), steps).items():
        if name.startswith("kernel"):
            yield kernel_inset(array)
        elif name.startswith("mask"):
            yield array[:, :, np.newaxis]
        elif name.startswith("motion"):
            yield motion_inset(array)
