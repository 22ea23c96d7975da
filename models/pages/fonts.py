"""Typefaces by name: TrueType files of the matplotlib wheel and of Debian's font packages, embedded in every page.

Nothing depends on the fonts that a machine happens to have: a family whose files are missing is an error, not another font.
Each family has every character that `Prose` writes. Designs that share their outlines stand here once (Tinos, Arimo and Cousine
are Liberation's), so that pages of a family left out of a training are new to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from transforms.errors import ConfigurationError

_DEBIAN = Path("/usr/share/fonts/truetype")
_WHEEL = "matplotlib"


@dataclass(frozen=True)
class Family:
    """Four files of one typeface.

    Attributes:
        source: a package of Debian's, or the matplotlib wheel.
        folder: where the package puts the files, below `/usr/share/fonts/truetype`.
        names: upright, bold, italic, bold italic; without `.ttf`.
        monospaced: whether all letters are as wide.
    """

    source: str
    folder: str
    names: tuple[str, str, str, str]
    monospaced: bool = False


def _styles(stem: str, upright: str = "-Regular", italic: str = "Italic") -> tuple[str, str, str, str]:
    return (f"{stem}{upright}", f"{stem}-Bold", f"{stem}-{italic}", f"{stem}-Bold{italic}")


def _free(stem: str) -> tuple[str, str, str, str]:
    return (stem, f"{stem}Bold", f"{stem}Oblique", f"{stem}BoldOblique")


FAMILIES: dict[str, Family] = {
    "dejavu-sans": Family(_WHEEL, "", _styles("DejaVuSans", "", "Oblique")),
    "dejavu-serif": Family(_WHEEL, "", _styles("DejaVuSerif", "")),
    "dejavu-mono": Family(_WHEEL, "", _styles("DejaVuSansMono", "", "Oblique"), monospaced=True),
    "stix": Family(_WHEEL, "", ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")),
    "liberation-sans": Family("fonts-liberation", "liberation", _styles("LiberationSans")),
    "liberation-narrow": Family("fonts-liberation", "liberation", _styles("LiberationSansNarrow")),
    "liberation-serif": Family("fonts-liberation", "liberation", _styles("LiberationSerif")),
    "liberation-mono": Family("fonts-liberation", "liberation", _styles("LiberationMono"), monospaced=True),
    "carlito": Family("fonts-crosextra-carlito", "crosextra", _styles("Carlito")),
    "dejavu-sans-condensed": Family("fonts-dejavu-extra", "dejavu", _styles("DejaVuSansCondensed", "", "Oblique")),
    "dejavu-serif-condensed": Family("fonts-dejavu-extra", "dejavu", _styles("DejaVuSerifCondensed", "")),
    "free-mono": Family("fonts-freefont-ttf", "freefont", _free("FreeMono"), monospaced=True),
    "free-sans": Family("fonts-freefont-ttf", "freefont", _free("FreeSans")),
    "gentium": Family("fonts-sil-gentiumplus", "gentiumplus", _styles("GentiumPlus")),
    "gentium-book": Family("fonts-sil-gentiumplus", "gentiumplus", _styles("GentiumBookPlus")),
    "hack": Family("fonts-hack", "hack", _styles("Hack"), monospaced=True),
    "jetbrains-mono": Family("fonts-jetbrains-mono", "jetbrains-mono", _styles("JetBrainsMono"), monospaced=True),
    "lato": Family("fonts-lato", "lato", _styles("Lato")),
    "noto-sans": Family("fonts-noto-core", "noto", _styles("NotoSans")),
    "noto-serif": Family("fonts-noto-core", "noto", _styles("NotoSerif")),
    "noto-serif-display": Family("fonts-noto-core", "noto", _styles("NotoSerifDisplay")),
    "open-sans": Family("fonts-open-sans", "open-sans", _styles("OpenSans")),
    "roboto": Family("fonts-roboto-unhinted", "roboto/unhinted/RobotoTTF", _styles("Roboto")),
    "roboto-condensed": Family("fonts-roboto-unhinted", "roboto/unhinted", _styles("RobotoCondensed")),
    "vollkorn": Family("fonts-vollkorn", "vollkorn", _styles("Vollkorn")),
}
IN_THE_WHEEL = tuple(name for name, family in FAMILIES.items() if family.source == _WHEEL)
MONOSPACED = tuple(name for name, family in FAMILIES.items() if family.monospaced)


def font_files(name: str) -> tuple[Path, ...]:
    """The family's four files.

    Raises:
        ConfigurationError: unknown family, or files that are not here.
    """
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigurationError(f"no font family {name!r}; expected some of {', '.join(FAMILIES)}")
    for folder in _folders(family):
        files = tuple(folder / f"{style}.ttf" for style in family.names)
        if all(file.is_file() for file in files):
            return files
    remedy = f"pip install {_WHEEL}" if family.source == _WHEEL else f"apt-get install {family.source}"
    raise ConfigurationError(f"the files of the font family {name!r} are not here; {remedy}")


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


def _folders(family: Family) -> Iterator[Path]:
    if family.source != _WHEEL:
        yield _DEBIAN / family.folder
        return
    found = find_spec(_WHEEL)
    if found is not None and found.submodule_search_locations:
        yield Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
