"""The HTTP API: one process, thin routes over the use cases of `defectoscope`."""
