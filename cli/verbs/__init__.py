"""One module a verb: parse, one call, one printer."""
