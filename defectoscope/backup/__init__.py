"""Backup and restore of the whole system: every table as of one moment, and every object that those rows point at.

A backup is a directory that needs no server to be read:

- ``tables/NAME.copy``: one file for each table, in PostgreSQL's text format of COPY;
- ``objects/KEY``: the objects under their keys, and ``objects.txt`` with these keys in order;
- ``manifest.json``: the revision of the schema, the bucket, counts and hashes. It is written last: without it the
  directory is no backup.

The tables are read under one snapshot, the objects afterwards. An object is written before the row that points at it
and the collector rests meanwhile, so that every object that a row of the backup names is there to be copied. Restoring
goes the other way round, objects first. What is not in a backup: the broker, whose messages the database makes up for,
secrets and settings, other buckets, and foreign files in our own.
"""

from __future__ import annotations

from defectoscope.backup.create import create_backup
from defectoscope.backup.manifest import Manifest, read_manifest
from defectoscope.backup.restore import restore_database, restore_objects

__all__ = ["Manifest", "create_backup", "read_manifest", "restore_database", "restore_objects"]
