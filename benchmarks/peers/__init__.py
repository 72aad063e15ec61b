"""What the worker is compared with: each does the same with the same files, each in a module that can be run alone."""
