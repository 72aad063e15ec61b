"""Turns a bucket of industrial images into defect records: the core shared by api, worker and trainer."""
