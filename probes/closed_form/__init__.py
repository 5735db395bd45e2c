"""Classifiers with a closed form: ridge regression, discriminant analysis, class means."""
