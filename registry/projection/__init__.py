"""The ledger as SQL tables in DuckDB, and guarded queries of them."""
