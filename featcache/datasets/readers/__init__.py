"""One module per layout on disk, each with `read(record, root, split)`."""
