"""The trainer: Celery tasks and schedule, training, export to the model contract and evaluation."""
