"""The `defectoscope` command: noun, verb, one file for each noun."""
