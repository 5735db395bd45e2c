"""featcache: extract features once, evaluate everything."""
