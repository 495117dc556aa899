"""Ingestion: raw files to an encoded data folder, shard by shard, on one machine or on many."""
