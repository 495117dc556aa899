"""Versions of the libraries a result depends on, and the three that must match."""

from importlib.metadata import PackageNotFoundError, version

from recsys_had.errors import ConfigError

_LIBRARIES = (
    "recsys_had",
    "torch",
    "torchrec",
    "fbgemm-gpu-cpu",
    "fbgemm-gpu",
    "polars",
    "pyarrow",
    "numpy",
    "pandas",
    "scikit-learn",
    "mlflow",
    "pydantic",
)
# torch, torchrec and fbgemm are released together: other pairs fail with undefined symbols.
KNOWN_TRIOS = (("2.13", "1.8", "1.8"), ("2.11", "1.6", "1.6"))
_REPAIR = "Run `make install` (CPU) or `make install-cuda`."


def library_versions() -> dict[str, str]:
    """Installed versions, without importing anything; absent libraries are left out.

    >>> library_versions()["torch"].split(".")[0]
    '2'
    """
    found = {name: _version(name) for name in _LIBRARIES}
    return {name: installed for name, installed in found.items() if installed is not None}


def check_trio() -> None:
    """Refuses torch, torchrec and fbgemm versions that were not built for each other.

    Raises:
        ConfigError: one is missing, both builds of fbgemm are installed, or they do not match.
    """
    torch, torchrec = _version("torch"), _version("torchrec")
    builds = {name: _version(name) for name in ("fbgemm-gpu-cpu", "fbgemm-gpu")}
    fbgemm = [installed for installed in builds.values() if installed is not None]
    if len(fbgemm) == 2:
        raise ConfigError(
            "installation: fbgemm-gpu and fbgemm-gpu-cpu are both installed and overwrite each "
            f"other's files. Remove both with `pip uninstall fbgemm-gpu fbgemm-gpu-cpu`. {_REPAIR}"
        )
    installed = (torch, torchrec, fbgemm[0] if fbgemm else None)
    short = tuple(_minor(number) for number in installed)
    if short in KNOWN_TRIOS:
        return
    told = ", ".join(
        f"{name} {number or 'missing'}"
        for name, number in zip(("torch", "torchrec", "fbgemm"), installed, strict=True)
    )
    wanted = " or ".join("/".join(trio) for trio in KNOWN_TRIOS)
    raise ConfigError(
        f"installation: torch/torchrec/fbgemm must be {wanted}; got {told}. {_REPAIR}"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _minor(number: str | None) -> str | None:
    return None if number is None else ".".join(number.split(".")[:2])
