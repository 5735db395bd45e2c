"""Benchmarks: ratios against a named peer in one run; figures stand in RESULTS.md."""
