"""Probes: pure functions over cached features, and the protocols that name their options."""
