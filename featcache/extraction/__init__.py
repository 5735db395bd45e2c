"""Fill feature sets: decode, transform, embed, spool, publish, seal."""
