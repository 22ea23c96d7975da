"""Writes the published schema again: `python -m models.recipes`."""

from models.recipes.loader import SCHEMA_FILE, recipe_schema

if __name__ == "__main__":
    SCHEMA_FILE.write_text(recipe_schema(), "utf-8")
