"""The eight phases, what they share, and the worker that runs one."""
