"""Domain II: content vectors with id embeddings, one stream with another."""
