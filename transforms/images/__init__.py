"""Picture file formats, one module each: `read_header`, `decode` and `encode`, and constants that say what the
format holds.
"""
