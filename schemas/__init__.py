"""The vocabulary: frozen values and pure functions that every other room speaks. No I/O."""
