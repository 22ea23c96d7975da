"""How likely counts as odd as these are, if their probabilities are what they are said to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEAST_EXPECTED = 10.0


def chance_of(observed: Sequence[int], expected: Sequence[float]) -> float:
    """The probability of counts that differ as much as these, or more, from what is expected of them.

    The likelihood ratio test:  G = 2 sum O ln(O / E)  is distributed like chi-square with one degree of freedom less than
    there are cells. Far out, where a flag is raised, it stays right for small E, which Pearson's sum (O - E)^2 / E does
    not: where a Poisson count of mean 1 has a tail of 1e-6, G is off by a tenth, Pearson's sum by a factor of 1e9.
    Neighbours share a cell until 10 are expected in each; two cells are left as they are.

    Args:
        observed: counts.
        expected: their probabilities, which add up to 1.

    Returns:
        1 where nothing was observed, 0 where something was that cannot be.

    Source: Wilks, "The large-sample distribution of the likelihood ratio", Annals of Mathematical Statistics 1938.

    Example:
        >>> round(chance_of([60, 40], [0.5, 0.5]), 3)
        0.045
    """
    total = sum(observed)
    cells = [(count, total * share) for count, share in zip(observed, expected, strict=True) if share > 0]
    if total > sum(count for count, _ in cells):
        return 0.0
    if len(cells) > 2:
        cells = _share_cells(cells)
    if total == 0 or len(cells) < 2:
        return 1.0
    ratio = 2 * sum(count * math.log(count / mean) for count, mean in cells if count)
    return chi_square_tail(max(ratio, 0.0), len(cells) - 1)


def _share_cells(cells: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    shared: list[tuple[int, float]] = []
    count, mean = 0, 0.0
    for more, further in cells:
        count, mean = count + more, mean + further
        if mean >= _LEAST_EXPECTED:
            shared.append((count, mean))
            count, mean = 0, 0.0
    if mean and shared:
        last, least = shared.pop()
        shared.append((last + count, least + mean))
    return shared


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi-square with `degrees` degrees of freedom >= value), in closed form.

    Q(a, x) = Gamma(a, x) / Gamma(a) with a = degrees / 2, x = value / 2, by  Q(a + 1, x) = Q(a, x) + x^a e^-x / Gamma(a + 1)
    from Q(1/2, x) = erfc(sqrt(x)) or Q(1, x) = e^-x.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.4.4 and 26.4.5.
    """
    half = value / 2
    if half == 0:
        return 1.0
    exponent, tail = (0.5, math.erfc(math.sqrt(half))) if degrees % 2 else (1.0, math.exp(-half))
    while exponent < degrees / 2:
        tail += math.exp(exponent * math.log(half) - half - math.lgamma(exponent + 1))
        exponent += 1
    return min(tail, 1.0)
