"""The page's section on what was drawn: a card for each operator, laid out for the template `report_drawn.html.j2`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.comparison_charts import ComparisonChart, WordRow, draw_columns, draw_words
from transforms.drawn_parameters import format_number


@dataclass(frozen=True)
class Panel:
    """One parameter: a chart of its numbers, or rows of its words."""

    parameter: Mapping[str, Any]
    chart: ComparisonChart | None = None
    rows: tuple[WordRow, ...] = ()


@dataclass
class Card:
    """One operator where it stands in the recipe.

    Attributes:
        place: as `compare_with_recipe` describes it.
        number, of: which of the recipe's places for this operator it is.
        constants: (parameter, value) of what is always the same.
    """

    place: Mapping[str, Any]
    number: int
    of: int
    constants: list[tuple[str, str]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    @property
    def follows(self) -> bool:
        """Whether the operator happens as often as the recipe says, with the parameters that it says."""
        return all(one["follows"] for one in (self.place, *self.place["parameters"]))


def lay_out_cards(drawn: Mapping[str, Any]) -> list[Card]:
    """The cards in the order of the recipe; parameters that never were drawn under their own name are left out."""
    totals = Counter(place["operator"] for place in drawn["operators"])
    seen: Counter[str] = Counter()
    cards = []
    for place in drawn["operators"]:
        seen[place["operator"]] += 1
        card = Card(place, seen[place["operator"]], totals[place["operator"]])
        for parameter in place["parameters"]:
            _add_parameter(card, parameter)
        cards.append(card)
    return cards


def _add_parameter(card: Card, parameter: Mapping[str, Any]) -> None:
    options = parameter.get("options", ())
    if len(options) == 1 and not parameter["other"]:
        card.constants.append((parameter["name"], format_number(options[0])))
    elif not parameter["count"]:
        return
    elif options and isinstance(options[0], str):
        card.panels.append(Panel(parameter, rows=draw_words(parameter)))
    else:
        card.panels.append(Panel(parameter, chart=draw_columns(parameter)))
