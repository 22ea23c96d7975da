"""Pages as records of a shard: KEY.png, KEY.txt (what stands there), KEY.json (layout, fonts, resolution, angles)."""

from __future__ import annotations

import json

from models.pages.page import Page, PageStyle, draw_page
from transforms.errors import ConfigurationError
from transforms.formats.tar import TarWriter, write_record
from transforms.images.options import EncodeOptions
from transforms.pictures import Picture, encode
from transforms.storage import OutputStore


def write_pages(url: str, style: PageStyle, seed: int, count: int) -> None:
    """Writes pages 0 to `count` - 1 of a seed as one tar, which appears complete or not at all; one is in memory at a time.

    Raises:
        ConfigurationError: no pages, or an output that is no tar.
    """
    if count < 1:
        raise ConfigurationError(f"the count of pages must be at least 1, not {count}")
    if not url.endswith(".tar"):
        raise ConfigurationError(f"pages are written as a tar, and {url!r} does not end in .tar; name one")
    folder, _, name = url.rpartition("/")
    store = OutputStore(folder or ".")
    with store.scratch() as scratch:
        finished = scratch / "shard.tar"
        with TarWriter(finished) as shard:
            for number in range(count):
                write_record(shard, f"page-{seed}-{number:05d}", page_fields(draw_page(style, seed, number)))
        store.publish(finished, name)


def page_fields(page: Page) -> dict[str, bytes]:
    """The fields of a page's record."""
    picture, _ = encode(Picture(page.pixels, None, "png"), "png", EncodeOptions())
    about = json.dumps(page.parameters, sort_keys=True)
    return {"png": picture, "txt": f"{page.text}\n".encode(), "json": about.encode()}
