"""The training process: data, training, export, parity, evaluation and publishing, run by Celery or by hand."""
