"""How plans stand, for verbs that only look: what a reactor sees, without what starts workers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from stillhouse.registry.planning.assess import assess
from stillhouse.schemas import moment
from stillhouse.schemas.digest import Digest
from stillhouse.session import Session, clock
from stillhouse.store.disk.locks import held

if TYPE_CHECKING:
    from stillhouse.registry.planning.admission import Admission
    from stillhouse.registry.planning.causes import Cause
    from stillhouse.registry.planning.views import PlanView, Site


class Outlook:
    """One registry as of now, and the environment that runs would have here."""

    def __init__(self, session: Session) -> None:
        from stillhouse.config import read_config
        from stillhouse.phases.reactor.site import Surroundings

        self.home = session.home
        self.state = session.state()
        self.site: Site = Surroundings(read_config(session.home).limits()).site
        self.now = moment.spell(clock())

    def view(self, plan: Digest, *, fresh: bool = False) -> PlanView:
        """A plan as it stands; `fresh`: as if it were asked for now. Raises KeyError."""
        from stillhouse.phases.catalog import CATALOG

        return assess(self.state, plan, CATALOG, self.site, self.now, fresh=fresh)

    def cause(self, view: PlanView, slot: str) -> Cause:
        """What has to change first for a slot of a plan. Raises KeyError."""
        from stillhouse.registry.planning.causes import find_cause

        live = [run.key for run in self.state.running()]
        return find_cause(
            self.state,
            view,
            slot,
            admissions=self._admissions,
            advanced=held(self.home.reactor_lock),
            deserted=[key for key in live if not held(self.home.run_lock(key))],
        )

    @cached_property
    def _admissions(self) -> tuple[Admission, ...]:
        """What becomes of every start that is ready, of all plans that are wanted."""
        from stillhouse.phases.catalog import CATALOG
        from stillhouse.registry.planning.admission import admissions
        from stillhouse.registry.planning.agenda import Agenda

        agenda = Agenda(self.state, CATALOG, self.site)
        agenda.facts(self.now)
        return tuple(admissions(agenda.starts(), self.state.running(), self.site.limits))
