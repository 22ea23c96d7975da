"""`conservator zoo`: the models that ship, with the quality that was measured on the very files."""

from __future__ import annotations

import json
from dataclasses import asdict

from export.card import read_card
from models.zoo import INTERPOLATIONS, MODELS, zoo_path
from pipelines.options import ZooOptions
from transforms.interpolation import InterpolatorFactory


def show_zoo(options: ZooOptions) -> int:
    """Prints a table of all models, or one card."""
    if options.name in INTERPOLATIONS:
        described = InterpolatorFactory(options.name, *INTERPOLATIONS[options.name]).describe()
        print(json.dumps(described, indent=2, sort_keys=True))
        return 0
    if options.name:
        print(json.dumps(asdict(read_card(str(zoo_path(options.name)))), indent=2, sort_keys=True))
        return 0
    for name in MODELS:
        card = read_card(str(zoo_path(name)))
        about = f"{card.purpose}, {card.color}, x{card.scale}, sees {card.receptive_field} pixels"
        if "takes" in card.card:  # not image-to-image
            about = f"{card.purpose}: {card.card['takes']} -> {card.card['gives']}"
        print(f"{name:24} {about}")
        for figure in card.card.get("measured", []):
            published = "".join(f", {who} {value:.2f}" for who, value in figure["published"].items())
            unit = " dB" if figure["protocol"].startswith("psnr") else ""
            figures = f"{figure['degraded']:.2f} -> {figure['value']:.2f}{unit}"
            print(
                f"{'':24} {figure['data_set']}, recipe {figure['recipe']}, {figure['protocol']}: {figures}{published}"
            )
    for name, (kernel, factor) in INTERPOLATIONS.items():
        print(f"{name:24} a baseline: interpolation by {kernel}, any channels, x{factor}")
    return 0
