"""One page, from a seed and a number: typeset as PDF, rasterised, laid on a scanner a little askew.

The text network's authors rendered 600,000 scientific PDFs at 240 to 300 dpi, halved them, and turned them by N(0, 1) degrees in
the plane and N(0, 4) out of it, with bicubic interpolation. So are these, but for where the PDFs come from: reportlab sets them
with embedded TrueType fonts, PDFium draws them, and says which characters stand there.

Source: Hradis et al., "Convolutional neural networks for direct text deblurring", BMVC 2015, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.pages.fonts import MONOSPACED, font_files, register
from models.pages.layouts import LAYOUTS, Sheet
from models.pages.prose import Prose
from transforms.errors import ConfigurationError
from transforms.randomness import generator

POINTS_PER_INCH = 72
_TEXT, _LOOK, _POSE = 0, 1, 2  # independent draws of one page


@dataclass(frozen=True)
class PageStyle:
    """What pages are drawn from.

    Attributes:
        families: names of `models.pages.fonts.FAMILIES`.
        layouts: names of `LAYOUTS`.
        dpi: range of the finished picture's resolution.
        rotation_deg, tilt_deg: standard deviations of the angles in the plane and out of it; 0 lays the page straight.

    Raises:
        ConfigurationError: unknown family or layout, missing font files, or a resolution out of 30 to 600.
    """

    families: tuple[str, ...]
    layouts: tuple[str, ...] = ("article", "report", "letter", "table", "listing")
    dpi: tuple[float, float] = (120.0, 150.0)
    rotation_deg: float = 1.0
    tilt_deg: float = 4.0

    def __post_init__(self) -> None:
        for family in self.families:
            font_files(family)
        for layout in self.layouts:
            if layout not in LAYOUTS:
                raise ConfigurationError(f"no page layout {layout!r}; expected some of {', '.join(LAYOUTS)}")
        if not self.families or not self.layouts:
            raise ConfigurationError("pages need at least one font family and one layout")
        if not 30 <= self.dpi[0] <= self.dpi[1] <= 600:
            raise ConfigurationError(f"a page's resolution is a range within 30 to 600 dpi, not {self.dpi}")


@dataclass(frozen=True)
class Page:
    """A finished page.

    Attributes:
        pixels: H x W x 3, uint8, RGB; H and W are even.
        text: what stands there, in the order of drawing, a line of the page a line.
        parameters: layout, fonts, dpi, angles; plain JSON.
    """

    pixels: NDArray[np.uint8]
    text: str
    parameters: dict[str, Any]


def draw_page(style: PageStyle, seed: int, number: int) -> Page:
    """Page `number` of a seed: always the same bytes, with the same fonts and the same PDFium."""
    look = generator(seed, "page", patch=number, step=_LOOK)
    layout = _one_of(look, style.layouts)
    body = register(_one_of(look, style.families))
    heading = register(_one_of(look, style.families)) if look.random() < 0.4 else body
    mono = [family for family in style.families if family in MONOSPACED]
    code = register(_one_of(look, mono)) if mono else body
    dpi = float(look.uniform(*style.dpi))
    sheet = Sheet(look, Prose(generator(seed, "page", patch=number, step=_TEXT)), body, heading, code)
    document, size_pt = LAYOUTS[layout](sheet)
    drawn, text = _rasterise(document, 2 * dpi)
    pose = generator(seed, "page", patch=number, step=_POSE)
    angles = [float(pose.normal(0, style.rotation_deg)), *(float(pose.normal(0, style.tilt_deg)) for _ in range(2))]
    pixels = _halved(_posed(drawn, angles))
    about = {
        "layout": layout, "body": body, "heading": heading, "dpi": round(dpi, 3), "size_pt": list(size_pt),
        "rotation_deg": angles[0], "tilt_deg": angles[1:], "seed": seed, "number": number,
    }  # fmt: skip
    return Page(pixels, text, about)


def _one_of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _rasterise(document: bytes, dpi: float) -> tuple[Image.Image, str]:
    """The first page of a PDF, and its characters as PDFium reads them out."""
    import pypdfium2

    pdf = pypdfium2.PdfDocument(BytesIO(document))
    try:
        page = pdf[0]
        picture = page.render(scale=dpi / POINTS_PER_INCH).to_pil().convert("RGB")
        text = page.get_textpage().get_text_bounded()
    finally:
        pdf.close()
    lines = (" ".join(line.split()) for line in text.splitlines())
    return picture, "\n".join(line for line in lines if line)


def _posed(picture: Image.Image, angles_deg: Sequence[float]) -> Image.Image:
    """Turned about the centre by a rotation in the plane, then tilted about the two axes, seen from 2.5 widths away."""
    if not any(angles_deg):
        return picture
    turn, pitch, yaw = np.radians(angles_deg)
    width, height = picture.size
    distance = 2.5 * width
    rotation = _about(0, pitch) @ _about(1, yaw) @ _about(2, turn)
    # A point (u, v) of the page lies at R (u, v, 0); pinhole at (0, 0, -distance).
    camera = np.array([[distance, 0, 0], [0, distance, 0], [0, 0, 1]]) @ np.column_stack(
        [rotation[:, 0], rotation[:, 1], [0, 0, distance]]
    )
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    inverse = centre @ np.linalg.inv(camera) @ np.linalg.inv(centre)
    coefficients = (inverse / inverse[2, 2]).ravel()[:8]
    paper = picture.getpixel((2, 2))
    return picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BICUBIC, fillcolor=paper
    )


def _about(axis: int, angle: float) -> NDArray[np.float64]:
    first, second = [each for each in range(3) if each != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _halved(picture: Image.Image) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, cropped to even sides."""
    half = np.asarray(picture.reduce(2))
    height, width = (side // 2 * 2 for side in half.shape[:2])
    return np.ascontiguousarray(half[:height, :width])
