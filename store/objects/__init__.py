"""Blobs by digest on a local disk: staging, leases, quarantine."""
