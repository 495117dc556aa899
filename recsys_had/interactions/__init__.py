"""Interactions: a function in a file each, by domain, written in the algebra.

Nothing here imports torch until an interaction is asked for.
"""

from recsys_had.interactions._catalog import (
    CatalogEntry,
    build,
    catalog,
    express,
    names,
    num_inputs,
    options,
    own_tables,
    sources_of,
)

__all__ = [
    "CatalogEntry",
    "build",
    "catalog",
    "express",
    "names",
    "num_inputs",
    "options",
    "own_tables",
    "sources_of",
]
