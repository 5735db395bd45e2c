"""Retrieval: rank a gallery for each query."""
