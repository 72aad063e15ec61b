"""Inspection: jobs, chunks, results. Who owes what, who holds it and what came out is decided here, in SQL."""
