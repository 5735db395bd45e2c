"""Few shots per class, and classifiers that start from class names."""
