"""What a check is: one point of a verification, with what it needs to be carried out."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from app.conversion.verification.case import Case
from app.domain.conversion import Measurement
from app.domain.errors import RecastError, memory_ran_out
from app.domain.report import Reason
from app.domain.text import message_of

log = logging.getLogger(__name__)

Need = Callable[[Case], bool]


def loaded(case: Case) -> bool:
    """The runtime has taken the artifact."""
    return case.runner is not None


def referenced(case: Case) -> bool:
    """The model ran on a probe at least."""
    return bool(case.references)


def unrefuted(case: Case) -> bool:
    """Nothing has failed, so that more evidence is worth its cost."""
    return not case.failed


def repeatable(case: Case) -> bool:
    """The model is not known to answer the same input differently."""
    return case.model_repeats is not False


def asked_for(figure: Measurement) -> Need:
    """The client wants that figure."""
    return lambda case: figure in case.subject.measure


@dataclass(frozen=True)
class Check:
    """One point: ``run`` adds to the case. The verdict rests on it, unless it only ``measures``.

    It is left out where the case lacks one of its ``needs``. ``timed``: whether its seconds are told under its name.
    """

    name: str
    run: Callable[[Case], None]
    needs: tuple[Need, ...] = ()
    measures: bool = False
    timed: bool = True

    def carry_out(self, case: Case) -> None:
        """Run it. One that raises has failed, with its traceback in the log; a measurement is told as not made.

        Raises RecastError, which is meant for the client, and what says that memory ran out.
        """
        if not all(need(case) for need in self.needs):
            return
        try:
            with case.clock.part(self.name) if self.timed else nullcontext():
                self.run(case)
        except RecastError:
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise
            log.exception("%s could not be carried out", self.name)
            why = f"{type(error).__name__}: {message_of(error, 300)}"
            if self.measures:
                case.not_run[self.name] = why
            else:
                case.find(Reason.check_failed, f"{self.name} could not be carried out: {why}")


def check(*needs: Need, measures: bool = False, timed: bool = True) -> Callable[[Callable[[Case], None]], Check]:
    """The decorated function as the check of its name."""
    return lambda run: Check(run.__name__, run, needs, measures, timed)
