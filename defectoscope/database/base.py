"""The declarative base, the naming convention of constraints and the column types every table shares."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Enum, Identity, MetaData, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

#: Stable names, so that a migration can drop what an earlier one created.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: Identity primary key. Small numbers are pleasant to read out over a phone: "job 12".
Id = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
#: A JSON object. Kept out of tables that lists scan.
Json = dict[str, Any]
#: Lower-case hexadecimal SHA-256.
Sha256 = Annotated[str, mapped_column(String(64))]
#: Set by the database, so that all clocks are one.
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
#: A moment, UTC.
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {Json: JSONB, int: BigInteger, datetime: DateTime(timezone=True)}


def states(enumeration: type[StrEnum]) -> Enum:
    """Return a text column type restricted by a CHECK constraint to the values of an enumeration.

    Text rather than a PostgreSQL enum type: adding a state is then an ordinary, reversible migration.
    """
    return Enum(
        enumeration,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=enumeration.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )
