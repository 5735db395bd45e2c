"""The public verbs; the command line is a thin layer over these."""
