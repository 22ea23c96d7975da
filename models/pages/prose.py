"""Text without sense: English words in Zipf's proportions, set into sentences, headings, numbers and formulas.

`words.txt` holds words in order of their frequency in the documentation of free software. Source of the proportions:
Mandelbrot, "An informational theory of the statistical structure of language", 1953: p(rank) ~ 1 / (rank + 2.7).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_SHIFT = 2.7
_OPERATORS = ("+", "-", "=", "<", ">", "·", "±", "/")
_LETTERS = "abcdefghijklmnopqrstuvwxyzαβγδλμσω"


class Prose:
    """An endless supply of text from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._words, self._upper = _vocabulary()

    def words(self, count: int) -> list[str]:
        """Words in lower case."""
        places = np.searchsorted(self._upper, self._rng.random(count), side="right")
        return [self._words[place] for place in places]

    def sentence(self) -> str:
        """4 to 22 words, a capital, commas, and now and then a number, a name, an abbreviation or brackets."""
        words = self.words(int(self._rng.integers(4, 23)))
        words = [self._varied(word) for word in words]
        words[0] = words[0][0].upper() + words[0][1:]
        end = "." if self._rng.random() < 0.9 else str(self._rng.choice(["?", "!", ":", ";"]))
        return " ".join(words).rstrip(",") + end

    def paragraph(self, sentences: int) -> str:
        return " ".join(self.sentence() for _ in range(sentences))

    def title(self, words: int) -> str:
        """Words with capitals."""
        return " ".join(word.capitalize() for word in self.words(words))

    def number(self) -> str:
        """As tables have them."""
        kind = int(self._rng.integers(5))
        value = float(self._rng.random())
        return (
            f"{value:.3f}",
            f"{value * 100:.1f}",
            f"{value * 9999:.0f}",
            f"{value * 1e6:,.0f}",
            f"{value * 99:.0f}%",
        )[kind]

    def formula(self) -> str:
        """One line of letters, numbers and operators."""
        terms = [self._term() for _ in range(int(self._rng.integers(3, 8)))]
        signs = [str(self._rng.choice(_OPERATORS)) for _ in terms[1:]]
        return " ".join([terms[0], *(f"{sign} {term}" for sign, term in zip(signs, terms[1:], strict=True))])

    def code(self) -> str:
        """One line as of a program."""
        first, second, third = self.words(3)
        return f"{first}_{second}[{int(self._rng.integers(100))}] = {third}({self.number()}, '{self.words(1)[0]}')"

    def name(self) -> str:
        """An author's."""
        initial = chr(65 + int(self._rng.integers(26)))
        return f"{initial}. {self.words(200)[-1].capitalize()}"

    def _term(self) -> str:
        letter = _LETTERS[int(self._rng.integers(len(_LETTERS)))]
        other = _LETTERS[int(self._rng.integers(26))]
        return (f"{letter}({other})", f"{int(self._rng.integers(2, 99))}{letter}", letter.upper(), f"{letter}{other}")[
            int(self._rng.integers(4))
        ]

    def _varied(self, word: str) -> str:
        chance = self._rng.random()
        if chance < 0.08:
            return f"{word},"
        if chance < 0.12:
            return word.capitalize()
        if chance < 0.15:
            return self.number()
        if chance < 0.165:
            return f"({word})"
        if chance < 0.175:
            return word.upper()
        if chance < 0.185:
            return f"[{int(self._rng.integers(1, 60))}]"
        return word


@cache
def _vocabulary() -> tuple[list[str], NDArray[np.float64]]:
    words = files("models.pages").joinpath("words.txt").read_text("utf-8").split()
    shares = 1.0 / (np.arange(len(words)) + 1 + _SHIFT)
    upper = np.cumsum(shares / shares.sum())
    upper[-1] = 1.0
    return words, upper
