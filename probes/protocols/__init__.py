"""The built-in protocols, one YAML file each; the file name is the protocol's name."""
