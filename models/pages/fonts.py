"""Typefaces by name: TrueType files of the matplotlib wheel and of Debian's fonts-liberation, embedded in every page.

Nothing depends on the fonts that a machine happens to have: a family whose files are missing is an error, not another font.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from transforms.errors import ConfigurationError

_DEBIAN = Path("/usr/share/fonts/truetype/liberation")
# Upright, bold, italic, bold italic.
FAMILIES: dict[str, tuple[str, str, str, str]] = {
    "dejavu-sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "dejavu-serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    "dejavu-mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    "stix": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    "liberation-sans": (
        "LiberationSans-Regular", "LiberationSans-Bold", "LiberationSans-Italic", "LiberationSans-BoldItalic",
    ),
    "liberation-narrow": (
        "LiberationSansNarrow-Regular", "LiberationSansNarrow-Bold", "LiberationSansNarrow-Italic",
        "LiberationSansNarrow-BoldItalic",
    ),
    "liberation-serif": (
        "LiberationSerif-Regular", "LiberationSerif-Bold", "LiberationSerif-Italic", "LiberationSerif-BoldItalic",
    ),
    "liberation-mono": (
        "LiberationMono-Regular", "LiberationMono-Bold", "LiberationMono-Italic", "LiberationMono-BoldItalic",
    ),
}  # fmt: skip
IN_THE_WHEEL = ("dejavu-sans", "dejavu-serif", "dejavu-mono", "stix")
MONOSPACED = ("dejavu-mono", "liberation-mono")


def font_files(family: str) -> tuple[Path, ...]:
    """The family's four files.

    Raises:
        ConfigurationError: unknown family, or files that are not here.
    """
    if family not in FAMILIES:
        raise ConfigurationError(f"no font family {family!r}; expected some of {', '.join(FAMILIES)}")
    for folder in _folders():
        files = tuple(folder / f"{name}.ttf" for name in FAMILIES[family])
        if all(file.is_file() for file in files):
            return files
    remedy = "pip install matplotlib" if family in IN_THE_WHEEL else "apt-get install fonts-liberation"
    raise ConfigurationError(f"the files of the font family {family!r} are not here; {remedy}")


def register(family: str) -> str:
    """Makes a family known to reportlab, once; returns its name there, which bold and italic markup follow."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    if family not in pdfmetrics.getRegisteredFontNames():
        names = [family, *(f"{family}-{style}" for style in ("bold", "italic", "bold-italic"))]
        for name, file in zip(names, font_files(family), strict=True):
            pdfmetrics.registerFont(TTFont(name, str(file)))
        pdfmetrics.registerFontFamily(family, *names)
    return family


def _folders() -> Iterator[Path]:
    found = find_spec("matplotlib")
    if found is not None and found.submodule_search_locations:
        yield Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    yield _DEBIAN
