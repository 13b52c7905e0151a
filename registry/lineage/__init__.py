"""The graph of artifacts and runs, its index, and walks over it."""
