"""Values to text and tables. Nothing here asks the terminal or the registry."""
