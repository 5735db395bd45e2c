"""Ordered samples with ids, labels and a reader of images, from many sources."""
