"""Errors that a user can mend: each says where, what was found and what would be right.

The command line prints the message alone and exits with status 2; the Python API raises them.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FactorySimError(Exception):
    """Base of all errors that are about inputs, not about the program."""


class ScenarioError(FactorySimError):
    """A scenario file or an override is wrong."""


class ProfileError(FactorySimError):
    """No profile fits, or a profile is asked outside what it covers."""


class CapacityError(FactorySimError):
    """A replica cannot hold what the scenario asks of it."""


class MeasurementError(FactorySimError):
    """A file of measurements or benchmark results cannot be used."""


class TraceError(FactorySimError):
    """A trace or request log cannot be used."""


class PriceError(FactorySimError):
    """A price is missing, ambiguous or absurd."""


class RunError(FactorySimError):
    """A run folder cannot be read or written."""


class SimulationStopped(FactorySimError):
    """A run ended on the way; `journal` holds what was played before, marked incomplete.

    Raised by `run`, it has the unfinished `run` with the tables of what was played, and no figures.
    """

    def __init__(self, message: str, journal=None, run=None):
        super().__init__(message)
        self.journal, self.run = journal, run


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else the list of what is known (at most 12)."""
    known = list(known)
    match = get_close_matches(name, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown}" if known else ""
