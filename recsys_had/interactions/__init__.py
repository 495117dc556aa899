"""Interactions: one file each, plain torch, found by file name.

Nothing here imports torch until a layer is asked for.
"""

from recsys_had.interactions._catalog import (
    CatalogEntry,
    build,
    catalog,
    names,
    options,
    own_tables,
)

__all__ = ["CatalogEntry", "build", "catalog", "names", "options", "own_tables"]
