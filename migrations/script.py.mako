"""${message}.

Revision: ${up_revision}
Follows: ${down_revision | comma,n}

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
