"""Durable writes, hashing and streaming on a local file system."""
