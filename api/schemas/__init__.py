"""What goes over the wire: one file for each noun, an example for each body."""
