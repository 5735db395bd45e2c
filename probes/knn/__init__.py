"""Nearest neighbours: one exact search, many votes."""
