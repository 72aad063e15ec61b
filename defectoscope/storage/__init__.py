"""Object storage: S3, a local directory or memory behind one contract, and the only importer of obstore and boto3.

`contract.py` says what callers may rely on, `open.py` makes a `Storage`, `buckets.py` makes buckets and signed
requests, `content.py` stores by content, `uri.py` reads `s3://` addresses. Nothing here knows images, jobs or models.
"""
