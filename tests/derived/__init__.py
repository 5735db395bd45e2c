"""Views of feature sets."""
