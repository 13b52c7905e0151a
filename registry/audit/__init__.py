"""Checks of the whole ledger against its projection and the store."""
