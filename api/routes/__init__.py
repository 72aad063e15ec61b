"""One file for each noun; a route parses, calls and shapes."""
