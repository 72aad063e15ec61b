"""Webhooks: events sent to addresses that others gave us, signed, again and again until they are taken.

What is owed stands in the database (`deliveries`), where it may go is decided by `addresses`, and how it gets there is
`sending`. Nothing here is done by a worker or a trainer: the API sends, from threads of its own.
"""
