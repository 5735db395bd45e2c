"""Feature sets on disk: layout, shards, spool, claims, manifest, reader, writer."""
