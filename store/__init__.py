"""Bytes by digest. Knows no events."""
