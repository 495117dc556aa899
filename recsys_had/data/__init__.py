"""Raw rows to ids, ids to batches."""
