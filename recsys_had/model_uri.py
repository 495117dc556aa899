"""Runs named by an MLflow model URI: where the run folder lies that a model was logged with.

``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/NAME/latest``, ``models:/MODEL_ID`` and
``runs:/RUN_ID/NAME``, of the store ``MLFLOW_TRACKING_URI``. Nothing of MLflow's own loading of
models takes part: what is found is a run folder, and is checked as any other.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from recsys_had.errors import CheckpointError
from recsys_had.suggest import nearest
from recsys_had.tracking import download_logged, given_store, mlflow_reason, store_client

_SCHEMES = ("models:/", "runs:/")


def is_model_uri(text: str) -> bool:
    """Whether a text names a model in MLflow.

    >>> is_model_uri("models:/ctr@champion"), is_model_uri("runs/ctr")
    (True, False)
    """
    return text.startswith(_SCHEMES)


def local_run(run: Path | str) -> Path:
    """The run folder on this machine: the path itself, or what a model URI names.

    Files of a store on this machine are read where they lie; those of another are downloaded into
    a folder for temporary files, which goes when the process ends.

    Args:
        run: a path or a model URI.

    Raises:
        CheckpointError: no store is named, it has no such model, or that was not logged by
            ``recsys-had train``.

    >>> local_run("runs/ctr")
    PosixPath('runs/ctr')
    """
    uri = str(run)
    if not is_model_uri(uri):
        return Path(run)
    store = given_store()
    if not store:
        raise CheckpointError(
            f"{uri}: is a model in MLflow, and MLFLOW_TRACKING_URI names no store. Set it, for "
            "example to sqlite:////path/to/runs/mlflow.db, or give a run folder."
        )
    try:
        folder = download_logged(_location(store_client(store), uri), store)
    except CheckpointError:
        raise
    except Exception as cause:
        raise CheckpointError(f"{uri}: MLflow at {store}: {mlflow_reason(cause)}") from cause
    return _run_within(folder, uri)


def _location(client: Any, uri: str) -> str:
    """Where the files of a model are.

    Raises:
        CheckpointError: the URI is none, or the store has no such model.
    """
    if match := re.fullmatch(r"runs:/([^/]+)/(.+?)/?", uri):
        return _of_run(client, match[1], match[2], uri)
    if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri):
        version = _version_of_alias(client, match[1], match[2], uri)
    elif match := re.fullmatch(r"models:/([^/@]+)/(\d+|latest)", uri):
        version = _version(client, match[1], match[2], uri)
    elif match := re.fullmatch(r"models:/(m-[0-9a-f]+)/?", uri):
        return str(client.get_logged_model(match[1]).artifact_location)
    else:
        raise CheckpointError(
            f"{uri}: is no model URI. Give models:/NAME@ALIAS, models:/NAME/VERSION or "
            "runs:/RUN_ID/model."
        )
    source = str(version.source)
    if is_model_uri(source) and source != uri:
        return _location(client, source)
    return str(client.get_model_version_download_uri(version.name, version.version))


def _of_run(client: Any, run_id: str, name: str, uri: str) -> str:
    run = client.get_run(run_id)
    logged = [client.get_logged_model(held.model_id) for held in run.outputs.model_outputs]
    names = [model.name for model in logged]
    if name in names:
        # The last: it is logged anew with what is added to the run, and the store keeps no order.
        own = [model for model in logged if model.name == name]
        return str(max(own, key=lambda model: model.creation_timestamp).artifact_location)
    told = nearest(name, names) or " It was not finished, or not by recsys-had."
    raise CheckpointError(f"{uri}: the run has no model '{name}'.{told}")


def _version_of_alias(client: Any, name: str, alias: str, uri: str) -> Any:
    aliases = _registered(client, name, uri).aliases
    if alias not in aliases:
        known = nearest(alias, aliases) or " It has none."
        raise CheckpointError(f"{uri}: the model has no alias '{alias}'.{known}")
    return client.get_model_version(name, str(aliases[alias]))


def _version(client: Any, name: str, number: str, uri: str) -> Any:
    _registered(client, name, uri)
    order = ["version_number DESC"]
    versions = {
        str(held.version): held
        for held in client.search_model_versions(f"name='{name}'", order_by=order)
    }
    if number == "latest" and versions:
        return next(iter(versions.values()))
    if number not in versions:
        known = nearest(number, versions) or " It has none."
        raise CheckpointError(f"{uri}: the model has no version {number}.{known}")
    return versions[number]


def _registered(client: Any, name: str, uri: str) -> Any:
    try:
        return client.get_registered_model(name)
    except Exception as cause:
        if getattr(cause, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [held.name for held in client.search_registered_models()]
        known = nearest(name, names)
        raise CheckpointError(
            f"{uri}: the store has no registered model '{name}'.{known}"
        ) from cause


def _run_within(folder: Path, uri: str) -> Path:
    """The run folder among the files of a logged model.

    Raises:
        CheckpointError: there is none.
    """
    try:
        model = yaml.safe_load((folder / "MLmodel").read_text())
        told = str(model["flavors"]["python_function"]["artifacts"]["run"]["path"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as cause:
        raise CheckpointError(
            f"{uri}: is no model that `recsys-had train` logged: its MLmodel names no run folder. "
            "Give a model that it logged."
        ) from cause
    found = (folder / told).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise CheckpointError(f"{uri}: its MLmodel names a folder outside of it: {told}.")
    return found
