"""The processes that execute phases, and the protocol they speak."""
