"""Clustering: find the classes without their labels."""
