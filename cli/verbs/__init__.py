"""One module a verb: parse, ask the application, print."""
