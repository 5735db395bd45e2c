"""Transferability scores, and what representations look like and have in common."""
