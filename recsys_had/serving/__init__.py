"""Serving: the batch predictor behind a port, for tests and staging.

Needs FastAPI and uvicorn, so nothing is imported here.
"""
