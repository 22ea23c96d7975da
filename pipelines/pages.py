"""Writes pages to learn from as a shard: `python -m pipelines.pages --count 200 --seed 1 --output pages.tar`.

Its pictures are clean ones like any others to `conservator degrade` and `conservator train`; the text of each is beside it.
"""

from __future__ import annotations

import argparse
import sys

from models.pages import LAYOUTS, PageStyle, write_pages
from models.pages.fonts import FAMILIES, IN_THE_WHEEL
from transforms.errors import ConfigurationError

EXIT_REFUSED = 5


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pages", description="Draws pages as a scanner sees them."
    )
    parser.add_argument("--count", type=int, required=True, help="pages")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--output", required=True, help="a tar")
    parser.add_argument("--families", default=",".join(IN_THE_WHEEL), help=f"'all', or fonts of {', '.join(FAMILIES)}")
    parser.add_argument(
        "--but", default="", help="families to leave out, so that they stay new to what learns from the pages"
    )
    parser.add_argument("--layouts", default=",".join(PageStyle.layouts), help=f"of {', '.join(LAYOUTS)}")
    parser.add_argument("--straight", action="store_true", help="neither turned nor tilted")
    given = parser.parse_args()
    try:
        families, layouts = _families(given.families, given.but), tuple(given.layouts.split(","))
        style = PageStyle(families, layouts)
        if given.straight:
            style = PageStyle(families, layouts, rotation_deg=0.0, tilt_deg=0.0)
        write_pages(given.output, style, given.seed, given.count)
    except ConfigurationError as error:
        print(f"pages: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _families(chosen: str, left_out: str) -> tuple[str, ...]:
    """In the order of their naming, which decides what is drawn."""
    but = [name for name in left_out.split(",") if name]
    for name in but:
        if name not in FAMILIES:
            raise ConfigurationError(f"no font family {name!r} to leave out; expected some of {', '.join(FAMILIES)}")
    named = FAMILIES if chosen == "all" else chosen.split(",")
    return tuple(name for name in named if name not in but)


if __name__ == "__main__":
    sys.exit(main())
