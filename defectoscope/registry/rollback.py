"""Rollback: back to the version that was in service before, further back when it is asked again."""

from __future__ import annotations

from sqlalchemy.orm import Session

from defectoscope.database import Database, LedgerAction
from defectoscope.errors.models import (
    AlreadyChampion,
    ModelNotReady,
    ModelRetired,
    ModelVariantUnavailable,
    ModelWeightsDropped,
    NothingToRollBackTo,
)
from defectoscope.registry.history import LedgerLine, service_stack
from defectoscope.registry.ledger import (
    ANY,
    ExpectedChampion,
    check_champion,
    check_serviceable,
    lock_ledger,
    put_into_service,
)
from defectoscope.registry.versions import champion_or_none, find_version


def rollback(
    *,
    database: Database,
    actor: str,
    reason: str,
    to: int | None = None,
    expected_champion: ExpectedChampion = ANY,
) -> LedgerLine:
    """Take the champion out of service and put the one before it back.

    Every rollback goes back in time. When version 3 was followed by 4 and 4 by 5, the first rollback gives 4 and the
    second gives 3; it does not return to 5, which somebody has just taken out of service. To go forward again, promote.
    Versions that were retired since, or whose files were dropped, are passed over, and the line says which.

    Args:
        database: where the ledger is.
        actor: who decided.
        reason: why.
        to: a version to go back to, one that a rollback would come to; None for the nearest.
        expected_champion: the version to be taken out of service. Two people who roll back at the same moment then go
            back one step and not two.

    Returns:
        The line of the ledger.

    Raises:
        ModelNotReady: nothing is in service.
        ChampionChanged: another version is in service than the expected one.
        NothingToRollBackTo: there is none before, or `to` was not in service before the present one.
        AlreadyChampion: `to` is in service.
        ModelVersionNotFound: there is no version `to`.
        ModelRetired, ModelWeightsDropped, ModelVariantUnavailable: `to` cannot serve.
        InvalidRequest: actor or reason is empty.
    """
    with database.transaction() as session:
        lock_ledger(session)
        champion = champion_or_none(session)
        if champion is None:
            raise ModelNotReady
        check_champion(champion, expected_champion)
        # The same version may stand deeper in the stack too; going back to it would change nothing.
        earlier = [number for number in reversed(service_stack(session)) if number != champion.number]
        if to is None:
            target, skipped = _nearest(session, champion.number, earlier)
        else:
            target, skipped = _check_target(session, champion.number, earlier, to), []
        return put_into_service(
            session,
            find_version(session, target),
            action=LedgerAction.ROLLED_BACK,
            actor=actor,
            reason=reason,
            figures={"skipped": skipped} if skipped else {},
        )


def _nearest(session: Session, champion: int, earlier: list[int]) -> tuple[int, list[int]]:
    """Return the nearest version that can serve, and those that were passed over."""
    skipped: list[int] = []
    for number in dict.fromkeys(earlier):
        try:
            check_serviceable(session, find_version(session, number))
        except (ModelRetired, ModelWeightsDropped, ModelVariantUnavailable):
            skipped.append(number)
        else:
            return number, skipped
    if not skipped:
        raise NothingToRollBackTo(f"No model version was in service before version {champion}.", champion=champion)
    names = ", ".join(str(number) for number in skipped)
    raise NothingToRollBackTo(
        f"Every model version that was in service before version {champion} was retired or has lost its files: "
        f"{names}.",
        champion=champion,
        skipped=skipped,
    )


def _check_target(session: Session, champion: int, earlier: list[int], to: int) -> int:
    version = find_version(session, to)
    if to == champion:
        raise AlreadyChampion(f"Model version {to} is in service already.", number=to)
    if to not in earlier:
        raise NothingToRollBackTo(
            f"Model version {to} was not in service before version {champion}; promote it instead.",
            champion=champion,
            earlier=list(dict.fromkeys(earlier)),
        )
    check_serviceable(session, version)
    return to
