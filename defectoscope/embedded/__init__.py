"""PostgreSQL, Valkey and SeaweedFS from wheels, and the supervisor that keeps them and our own processes running.

Everything listens on the loopback address only and keeps its files under one data directory. This package refuses to
know what the servers are used for: it hands out addresses and credentials and nothing else.
"""

from __future__ import annotations

import sys

from defectoscope.errors.installation import PlatformUnsupported

# File locks, user accounts and process groups are those of POSIX; saying so here beats a missing module later.
if sys.platform == "win32":
    raise PlatformUnsupported(
        "The embedded servers need Linux or macOS; set DEFECTOSCOPE_DATABASE__URL, DEFECTOSCOPE_QUEUE__URL and "
        "DEFECTOSCOPE_STORAGE__ENDPOINT_URL to use servers of your own."
    )
