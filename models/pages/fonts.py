"""Typefaces by name: TrueType files of the matplotlib wheel and of Debian's font packages, embedded in every page.

Nothing depends on the fonts that a machine happens to have: a family whose files are missing is an error, not another font.
Each family has every character that `Prose` writes. Copies are left out (Tinos, Arimo and Cousine are Liberation's), but some
families are kin: condensed cuts (Sans Narrow is a narrowed Liberation Sans), DejaVu Mono and Hack, Carlito and Lato, the two
Gentiums. Pages are new to a network only where no kin of their family was in its training.
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
        monospaced: whether all letters are equally wide.
    """

    source: str
    folder: str
    names: tuple[str, str, str, str]
    monospaced: bool = False


def _style_names(stem: str, upright: str = "-Regular", italic: str = "Italic") -> tuple[str, str, str, str]:
    return (f"{stem}{upright}", f"{stem}-Bold", f"{stem}-{italic}", f"{stem}-Bold{italic}")


def _freefont_names(stem: str) -> tuple[str, str, str, str]:
    return (stem, f"{stem}Bold", f"{stem}Oblique", f"{stem}BoldOblique")


FAMILIES: dict[str, Family] = {
    "dejavu-sans": Family(_WHEEL, "", _style_names("DejaVuSans", "", "Oblique")),
    "dejavu-serif": Family(_WHEEL, "", _style_names("DejaVuSerif", "")),
    "dejavu-mono": Family(_WHEEL, "", _style_names("DejaVuSansMono", "", "Oblique"), monospaced=True),
    "stix": Family(_WHEEL, "", ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")),
    "liberation-sans": Family("fonts-liberation", "liberation", _style_names("LiberationSans")),
    "liberation-narrow": Family("fonts-liberation", "liberation", _style_names("LiberationSansNarrow")),
    "liberation-serif": Family("fonts-liberation", "liberation", _style_names("LiberationSerif")),
    "liberation-mono": Family("fonts-liberation", "liberation", _style_names("LiberationMono"), monospaced=True),
    "carlito": Family("fonts-crosextra-carlito", "crosextra", _style_names("Carlito")),
    "dejavu-sans-condensed": Family("fonts-dejavu-extra", "dejavu", _style_names("DejaVuSansCondensed", "", "Oblique")),
    "dejavu-serif-condensed": Family("fonts-dejavu-extra", "dejavu", _style_names("DejaVuSerifCondensed", "")),
    "free-mono": Family("fonts-freefont-ttf", "freefont", _freefont_names("FreeMono"), monospaced=True),
    "free-sans": Family("fonts-freefont-ttf", "freefont", _freefont_names("FreeSans")),
    "gentium": Family("fonts-sil-gentiumplus", "gentiumplus", _style_names("GentiumPlus")),
    "gentium-book": Family("fonts-sil-gentiumplus", "gentiumplus", _style_names("GentiumBookPlus")),
    "hack": Family("fonts-hack", "hack", _style_names("Hack"), monospaced=True),
    "jetbrains-mono": Family("fonts-jetbrains-mono", "jetbrains-mono", _style_names("JetBrainsMono"), monospaced=True),
    "lato": Family("fonts-lato", "lato", _style_names("Lato")),
    "noto-sans": Family("fonts-noto-core", "noto", _style_names("NotoSans")),
    "noto-serif": Family("fonts-noto-core", "noto", _style_names("NotoSerif")),
    "noto-serif-display": Family("fonts-noto-core", "noto", _style_names("NotoSerifDisplay")),
    "open-sans": Family("fonts-open-sans", "open-sans", _style_names("OpenSans")),
    "roboto": Family("fonts-roboto-unhinted", "roboto/unhinted/RobotoTTF", _style_names("Roboto")),
    "roboto-condensed": Family("fonts-roboto-unhinted", "roboto/unhinted", _style_names("RobotoCondensed")),
    "vollkorn": Family("fonts-vollkorn", "vollkorn", _style_names("Vollkorn")),
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
