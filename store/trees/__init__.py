"""Folders as trees of blobs: names, scanning, checkout."""
