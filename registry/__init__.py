"""The ledger, its projection, lineage, plans, gates and decisions. Opens no blob."""
