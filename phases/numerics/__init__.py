"""Distances between distributions, statistics, and the number of threads."""
