"""Share feature sets through directories, object stores, the Hugging Face Hub and HTTP."""
