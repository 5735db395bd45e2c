"""Linear classifiers on cached features."""
