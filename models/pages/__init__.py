"""Pages as a scanner or a PDF viewer shows them, drawn from nothing but a seed: what the text network learns from."""

from models.pages.layouts import LAYOUTS
from models.pages.page import Page, PageStyle, draw_page
from models.pages.shard import write_pages

__all__ = ["LAYOUTS", "Page", "PageStyle", "draw_page", "write_pages"]
