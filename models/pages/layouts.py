"""What stands where on a page: articles in columns, reports, letters, tables, listings, and single paragraphs.

A layout draws one page on a `Sheet` and returns it as PDF, with its size in points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from reportlab.lib.colors import Color
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Frame, Paragraph, Preformatted, Spacer, Table

from models.pages.figures import Figure
from models.pages.prose import Prose

A4, LETTER = (595.0, 842.0), (612.0, 792.0)
LEFT, CENTRE, RIGHT, JUSTIFIED = 0, 1, 2, 4
_BLACK_INK, _WHITE_PAPER = 0.7, 0.6  # shares of the pages
MOST_FLOWABLES = 60


@dataclass
class Sheet:
    """One page's random choices: text, fonts, inks.

    Attributes:
        rng: for the look; the text has its own generator, in `prose`.
        body, heading, code: font families as registered.
    """

    rng: np.random.Generator
    prose: Prose
    body: str
    heading: str
    code: str
    size: float = field(init=False)
    ink: Color = field(init=False)
    accent: Color = field(init=False)
    paper: Color = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng
        self.size = float(rng.uniform(8.5, 12.5))
        grey = float(rng.uniform(0, 0.35))
        self.ink = Color(0, 0, 0) if rng.random() < _BLACK_INK else Color(*(grey + rng.uniform(0, 0.1, 3)))
        self.accent = Color(*rng.uniform(0, 0.6, 3)) if rng.random() < 0.4 else self.ink
        shade = float(rng.uniform(0.82, 1))
        self.paper = Color(1, 1, 1) if rng.random() < _WHITE_PAPER else Color(*(shade - rng.uniform(0, 0.06, 3)))

    def style(
        self, *, heading: bool = False, scale: float = 1.0, align: int = JUSTIFIED, **more: Any
    ) -> ParagraphStyle:
        """A paragraph style; `scale` is of the page's text size."""
        size = self.size * scale
        return ParagraphStyle(
            "", fontName=self.heading if heading else self.body, fontSize=size, leading=size * 1.22, alignment=align,
            textColor=self.accent if heading else self.ink, spaceAfter=size * 0.5, **more,
        )  # fmt: skip

    def paragraph(self, sentences: int, style: ParagraphStyle) -> Paragraph:
        """Prose with some words in bold or italics."""
        return Paragraph(self._marked(self.prose.paragraph(sentences)), style)

    def bold(self, text: str, style: ParagraphStyle) -> Paragraph:
        return Paragraph(f"<b>{escape(text)}</b>", style)

    def _marked(self, text: str) -> str:
        marks = {0: "b", 1: "i", 2: "i"}
        kinds = self.rng.integers(0, 60, len(text.split()))
        words = [
            f"<{marks[kind]}>{escape(word)}</{marks[kind]}>" if kind in marks else escape(word)
            for word, kind in zip(text.split(), kinds.tolist(), strict=True)
        ]
        return " ".join(words)

    def whole(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.rng.integers(low, high + 1))


Layout = Callable[[Sheet], tuple[bytes, tuple[float, float]]]


def article(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """Title, authors and abstract over two or three columns."""
    width, height = A4 if sheet.rng.random() < 0.5 else LETTER
    margin, gutter = float(sheet.rng.uniform(36, 66)), float(sheet.rng.uniform(12, 22))
    columns = 3 if sheet.rng.random() < 0.15 else 2
    head = float(sheet.rng.uniform(110, 190)) if sheet.rng.random() < 0.6 else 0.0
    canvas, output = _canvas(sheet, (width, height))
    if head:
        title = sheet.style(heading=True, scale=float(sheet.rng.uniform(1.5, 2.1)), align=CENTRE)
        names = ", ".join(sheet.prose.name() for _ in range(sheet.whole(1, 4)))
        story = [
            sheet.bold(sheet.prose.title(sheet.whole(4, 9)), title),
            Paragraph(escape(names), sheet.style(align=CENTRE)),
            sheet.paragraph(3, sheet.style(scale=0.9, leftIndent=30, rightIndent=30)),
        ]
        _fill(canvas, (margin, height - margin - head, width - 2 * margin, head), story)
    column = (width - 2 * margin - (columns - 1) * gutter) / columns
    for number in range(columns):
        place = (margin + number * (column + gutter), margin, column, height - 2 * margin - head)
        _fill(canvas, place, [_block(sheet, column) for _ in range(MOST_FLOWABLES)])
    return _finished(canvas, output), (width, height)


def report(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """One column of headings, paragraphs, lists, tables and figures, with a running head and a page number."""
    width, height = A4 if sheet.rng.random() < 0.5 else LETTER
    margin = float(sheet.rng.uniform(50, 95))
    canvas, output = _canvas(sheet, (width, height))
    canvas.setFillColor(sheet.ink)
    canvas.setFont(sheet.body, 9)
    canvas.drawString(margin, height - 34, sheet.prose.title(4))
    canvas.drawRightString(width - margin, height - 34, str(sheet.whole(1, 400)))
    inside = width - 2 * margin
    _fill(canvas, (margin, 46, inside, height - 92), [_block(sheet, inside) for _ in range(MOST_FLOWABLES)])
    return _finished(canvas, output), (width, height)


def letter(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """Addresses, a date, ragged paragraphs, a signature's line."""
    width, height = A4
    margin = float(sheet.rng.uniform(60, 90))
    canvas, output = _canvas(sheet, (width, height))
    ragged, tight = sheet.style(align=LEFT), sheet.style(align=LEFT)
    tight.spaceAfter = 0
    lines = [f"{sheet.prose.title(2)} {sheet.whole(1, 200)}" for _ in range(sheet.whole(3, 5))]
    story: list[Any] = [Paragraph(escape(line), tight) for line in lines]
    story += [
        Spacer(1, 24),
        Paragraph(f"{sheet.whole(1, 28)} {sheet.prose.title(1)} {sheet.whole(1950, 2030)}", ragged),
    ]
    story += [sheet.bold(sheet.prose.title(5), ragged)]
    story += [sheet.paragraph(sheet.whole(2, 6), ragged) for _ in range(sheet.whole(4, 8))]
    story += [Spacer(1, 18), Paragraph(escape(sheet.prose.name()), ragged)]
    _fill(canvas, (margin, margin, width - 2 * margin, height - 2 * margin), story)
    return _finished(canvas, output), (width, height)


def table(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """A page of tables with captions."""
    width, height = (A4[1], A4[0]) if sheet.rng.random() < 0.3 else A4
    margin = float(sheet.rng.uniform(36, 70))
    canvas, output = _canvas(sheet, (width, height))
    story: list[Any] = []
    for number in range(12):
        caption = f"Table {number + 1}. {sheet.prose.sentence()}"
        story += [
            Paragraph(escape(caption), sheet.style(align=LEFT)),
            _table(sheet, width - 2 * margin, 18),
            Spacer(1, 14),
        ]
    _fill(canvas, (margin, margin, width - 2 * margin, height - 2 * margin), story)
    return _finished(canvas, output), (width, height)


def listing(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """Paragraphs between lines of a program."""
    width, height = LETTER
    margin = float(sheet.rng.uniform(45, 80))
    canvas, output = _canvas(sheet, (width, height))
    story: list[Any] = []
    for _ in range(12):
        story += [sheet.paragraph(sheet.whole(1, 3), sheet.style()), _program(sheet)]
    _fill(canvas, (margin, margin, width - 2 * margin, height - 2 * margin), story)
    return _finished(canvas, output), (width, height)


def paragraph(sheet: Sheet) -> tuple[bytes, tuple[float, float]]:
    """One paragraph on a slip of paper: what reading is measured on."""
    style = sheet.style()
    block = Paragraph(escape(sheet.prose.paragraph(3)), style)
    width, margin = float(sheet.rng.uniform(300, 380)), 22.0
    inside = width - 2 * margin
    height = block.wrap(inside, 1e4)[1] + 2 * margin
    canvas, output = _canvas(sheet, (width, height))
    block.drawOn(canvas, margin, margin)
    return _finished(canvas, output), (width, height)


LAYOUTS: dict[str, Layout] = {
    "article": article,
    "report": report,
    "letter": letter,
    "table": table,
    "listing": listing,
    "paragraph": paragraph,
}


def _canvas(sheet: Sheet, size: tuple[float, float]) -> tuple[Canvas, BytesIO]:
    output = BytesIO()
    canvas = Canvas(output, pagesize=size, invariant=1)
    canvas.setFillColor(sheet.paper)
    canvas.rect(0, 0, *size, stroke=0, fill=1)
    return canvas, output


def _finished(canvas: Canvas, output: BytesIO) -> bytes:
    canvas.showPage()
    canvas.save()
    return output.getvalue()


def _fill(canvas: Canvas, place: tuple[float, float, float, float], story: Sequence[Any]) -> None:
    """Lays blocks into a frame from above, as many as fit; the last paragraph is cut at the bottom line."""
    frame = Frame(*place, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0, showBoundary=0)
    for block in story:
        if frame.add(block, canvas):
            continue
        parts = frame.split(block, canvas)
        if parts:
            frame.add(parts[0], canvas)
            return


def _block(sheet: Sheet, width: float) -> Any:
    """A heading, a paragraph, a list, a formula, a table, a figure or lines of a program."""
    chance = sheet.rng.random()
    if chance < 0.13:
        heading = sheet.style(heading=True, scale=float(sheet.rng.uniform(1.05, 1.5)), align=LEFT)
        number = f"{sheet.whole(1, 9)}.{sheet.whole(1, 9)} " if sheet.rng.random() < 0.5 else ""
        return sheet.bold(number + sheet.prose.title(sheet.whole(2, 5)), heading)
    if chance < 0.25:
        item = sheet.style(leftIndent=16, bulletIndent=4)
        mark = "•" if sheet.rng.random() < 0.5 else f"{sheet.whole(1, 9)}."
        return Paragraph(escape(sheet.prose.paragraph(1)), item, bulletText=mark)
    if chance < 0.32:
        return Paragraph(f"<i>{escape(sheet.prose.formula())}</i>", sheet.style(align=CENTRE, scale=1.05))
    if chance < 0.36:
        return _table(sheet, width, 6)
    if chance < 0.41:
        return Figure(sheet.rng, sheet.prose, sheet.body, width)
    if chance < 0.44:
        return _program(sheet)
    return sheet.paragraph(sheet.whole(2, 6), sheet.style(firstLineIndent=float(sheet.whole(0, 1)) * 14))


def _program(sheet: Sheet) -> Preformatted:
    style = sheet.style(align=LEFT, scale=0.85)
    style.fontName = sheet.code
    return Preformatted("\n".join(sheet.prose.code()[:58] for _ in range(sheet.whole(3, 8))), style)


def _table(sheet: Sheet, width: float, most_rows: int) -> Table:
    columns = max(2, min(sheet.whole(3, 7), int(width // 62)))
    rows = [[sheet.prose.title(1)[:10] for _ in range(columns)]]
    for _ in range(sheet.whole(3, most_rows)):
        rows.append([sheet.prose.words(1)[0][:10], *(sheet.prose.number() for _ in range(columns - 1))])
    commands: list[tuple[Any, ...]] = [
        ("FONT", (0, 0), (-1, -1), sheet.body, sheet.size * 0.9, sheet.size * 1.1),
        ("FONT", (0, 0), (-1, 0), f"{sheet.body}-bold", sheet.size * 0.9, sheet.size * 1.1),
        ("TEXTCOLOR", (0, 0), (-1, -1), sheet.ink),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
        ("LINEBELOW", (0, 0), (-1, 0), 0.7, sheet.ink),
    ]
    if sheet.rng.random() < 0.5:
        commands.append(("GRID", (0, 0), (-1, -1), 0.5, sheet.ink))
    if sheet.rng.random() < 0.3:
        commands.append(("BACKGROUND", (0, 0), (-1, 0), Color(*sheet.rng.uniform(0.75, 0.95, 3))))
    return Table(rows, colWidths=[width / columns] * columns, style=commands, spaceAfter=8)
