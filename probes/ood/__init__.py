"""Out-of-distribution detection from cached features."""
