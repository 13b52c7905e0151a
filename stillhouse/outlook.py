"""How plans stand, for verbs that only look: what a reactor sees, without what starts workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.registry.planning.assess import assess
from stillhouse.schemas import moment
from stillhouse.schemas.digest import Digest
from stillhouse.session import Session, clock

if TYPE_CHECKING:
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
