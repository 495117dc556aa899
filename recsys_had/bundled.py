"""Where the bundled datasets and experiments lie: in the wheel, or beside the source."""

from pathlib import Path

from recsys_had.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def datasets_dir() -> Path:
    """Folder of the bundled dataset cards.

    Raises:
        ConfigError: neither an installed copy nor a checkout is there.
    """
    return _find("datasets", "criteo/dataset.yaml")


def configs_dir() -> Path:
    """Folder of the bundled experiments.

    Raises:
        ConfigError: neither an installed copy nor a checkout is there.
    """
    return _find("configs", "models/fm.yaml")


def _find(name: str, known_file: str) -> Path:
    """The wheel's copy first: an editable install has none and finds the checkout."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if (folder / known_file).is_file():
            return folder
    raise ConfigError(
        f"{_PACKAGE}: the bundled {name} are missing. Install recsys_had again with `make install`."
    )
