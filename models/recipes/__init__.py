"""Recipes: YAML files that say how pictures are degraded and cut (and, in a second kind, how networks are trained)."""

from models.recipes.loader import load_recipe, shipped_recipes
from models.recipes.patches import Cut, Patches
from models.recipes.recipe import Drawn, Pair, Recipe, Rejection

__all__ = ["Cut", "Drawn", "Pair", "Patches", "Recipe", "Rejection", "load_recipe", "shipped_recipes"]
