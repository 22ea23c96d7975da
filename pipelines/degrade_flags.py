"""What the flags of `conservator degrade` ask for: the job that its workers do, and the units of it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from models.recipes import Recipe, load_recipe
from pipelines.degrade import DegradeJob
from pipelines.options import DegradeOptions
from pipelines.result_sizes import refuse_drawn_sizes
from transforms.errors import ConfigurationError
from transforms.pair_format import PairFormat
from transforms.pictures import EncodeOptions
from transforms.shuffle import shuffled
from transforms.storage import OutputStore
from transforms.units import Plan, plan_units
from transforms.work import ShardLayout, SinkKind


def degrade_job(options: DegradeOptions) -> DegradeJob:
    """Reads the recipe and checks everything that can be known before a worker starts.

    Raises:
        ConfigurationError: flags that contradict each other or the recipe, or pairs that the output can't hold.
    """
    recipe = load_recipe(options.recipe)
    if options.whole:
        if options.patch_size or options.patches_per_image:
            raise ConfigurationError(
                "--whole makes one pair of each picture: leave out --patch_size and --patches_per_image"
            )
        recipe = replace(recipe, patches=None)
    if options.patch_size < 0 or options.patches_per_image < 0:
        raise ConfigurationError("--patch_size and --patches_per_image must be at least 1, or 0 for the recipe's own")
    if beyond := options.patch_size % (step := recipe.crop_to_multiple):
        lower = options.patch_size - beyond
        raise ConfigurationError(
            f"--patch_size {options.patch_size}: recipe {recipe.name!r} takes multiples of {step} (its crop_to_multiple); "
            f"choose {f'{lower} or ' if lower else ''}{lower + step}"
        )
    if not 0 <= options.validation_share < 1:
        raise ConfigurationError(
            f"--validation_share is {options.validation_share:g}; it must be from 0 to below 1, 0.05 for a twentieth"
        )
    if options.variants < 1:
        raise ConfigurationError(f"--variants is {options.variants}; it must be at least 1")
    if options.shard_mb and options.output_format == "folder":
        raise ConfigurationError("--shard_mb bounds shards, a folder has none: leave it out, or choose a tar")
    stored = pair_format(options, recipe)
    patch_size = options.patch_size or (recipe.patches.size if recipe.patches else 0)
    if options.output_format == "arrow" and patch_size:
        refuse_drawn_sizes(recipe, patch_size, options.seed)
    return DegradeJob(
        recipe,
        options.seed,
        options.patch_size or None,
        options.patches_per_image or None,
        cast("SinkKind", options.output_format),
        stored,
        ShardLayout(options.shard_mb * 2**20, divided=options.validation_share > 0),
        options.validation_share,
        options.variants,
        options.max_pixels,
    )


def pair_format(options: DegradeOptions, recipe: Recipe) -> PairFormat:
    """The formats that the flags ask for, and the recipe where they do not.

    Raises:
        ConfigurationError: Arrow with coded pictures, or with whole pictures, whose sizes differ.
    """
    encoding = EncodeOptions(png_level=options.png_level, jpeg_quality=options.jpeg_quality)
    clean, degraded = options.clean_format, options.degraded_format or recipe.store
    if options.output_format != "arrow":
        return PairFormat(clean or "png", degraded, encoding)
    for name, asked in (("clean", clean), ("degraded", options.degraded_format)):
        if asked and not asked.startswith("npy"):
            raise ConfigurationError(
                f"--{name}_format {asked} with --output_format arrow: Arrow shards hold samples as they are; "
                "leave it out, or write parquet, which holds files"
            )
    if recipe.patches is None and not options.patch_size:
        raise ConfigurationError(
            "--output_format arrow needs pictures of one size, and whole ones are asked for: "
            "add --patch_size, which also takes pictures of exactly that size whole, or write parquet"
        )
    return PairFormat("npy", "npy" if degraded == "npy" else "npy-rounded", encoding, eight_bit=True)


def plan_degradation(options: DegradeOptions) -> Plan:
    """The units of a synthesis: those of its input, or the shards of a shuffled output.

    Raises:
        ConfigurationError: as `degrade_job`, `plan_units` and `shuffled`.
    """
    if not options.shuffle:
        return plan_units(options.input, pictures_per_unit=options.pictures_per_unit, units=options.shards)
    if options.output_format == "folder":
        raise ConfigurationError(
            "--shuffle orders pairs inside of shards, a folder has none: choose tar or another shard"
        )
    pairs, store = degrade_job(options).pairs_per_picture, OutputStore(options.output)
    return shuffled(plan_units(options.input), store, pairs_each=pairs, seed=options.seed, shards=options.shards)
