"""Advances plans: starts handlers when their inputs appear, records how they end."""
