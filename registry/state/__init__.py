"""The ledger folded into memory: artifacts, runs, tags, plans."""
