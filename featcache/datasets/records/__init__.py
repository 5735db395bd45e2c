"""What is known about datasets with a name: one YAML file per group, one row per dataset."""
