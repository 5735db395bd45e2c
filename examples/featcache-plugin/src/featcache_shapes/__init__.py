"""One backbone, one dataset and one protocol for featcache."""
