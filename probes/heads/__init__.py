"""Classify with a classifier that was there before."""
