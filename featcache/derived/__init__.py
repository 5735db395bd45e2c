"""Views of feature sets: normalised, projected, quantised, concatenated; lazy until asked."""
