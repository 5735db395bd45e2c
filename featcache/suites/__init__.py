"""The suites that come with featcache: one YAML file each, to be run or copied."""
