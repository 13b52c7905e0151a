"""Records, tool calls and the journal of a data set's answers."""
