"""The inspection worker: Celery tasks, the ONNX Runtime engine and the pipeline between them."""
