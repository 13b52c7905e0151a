"""Verifies what the store holds."""
