"""Decides what a plan still needs, may start, and waits for."""
