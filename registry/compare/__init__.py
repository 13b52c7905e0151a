"""Differences between runs and artifacts, and where they begin."""
