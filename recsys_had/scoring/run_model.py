"""From a run folder to its model, whose tables are the pages of the run's file."""

import torch

from recsys_had.data.encode import Encoder
from recsys_had.errors import CheckpointError
from recsys_had.model.ctr import CTRModel
from recsys_had.model.embeddings import field_specs, is_field_table
from recsys_had.run_folder import RunFolder


def model_of_run(run: RunFolder, encoder: Encoder, *, as_float: bool = True) -> CTRModel:
    """The model with the run's weights.

    Args:
        run: the run folder, opened.
        encoder: the run's own encoder.
        as_float: whether tables that were saved in half precision become float32, without which
            they cannot be looked up.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit.
    """
    weights = run.weights()
    saved = {weight.dtype for name, weight in weights.items() if is_field_table(name)}
    model = CTRModel(
        fields=field_specs(run.card, encoder.num_embeddings),
        dense=run.card.dense,
        config=run.experiment.model,
        vectors=run.card.vectors,
        # They become the file's own pages, of which those are read that rows ask for.
        tables_on="meta",
        table_type=torch.float32 if as_float or len(saved) != 1 else saved.pop(),
    )
    try:
        model.import_state(weights)
    except ValueError as cause:
        raise CheckpointError(f"{run.path}/weights.safetensors: {cause}") from cause
    return model
