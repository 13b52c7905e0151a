"""Kernels of the MIL operations, one module a family."""
