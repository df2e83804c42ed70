"""One file on its way to an inspection: its bytes, and what is to be told about reading it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.inputs.logs import jsonscan
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints


@dataclass
class Found:
    """What a reader hands back."""

    points: list[Point]
    tool: str
    tool_version: str | None = None
    session_relative: bool = False


@dataclass
class Report:
    """Notes and complaints while one file is read."""

    source: Source
    notes: list[str] = field(default_factory=list)
    complaints: Complaints = field(default_factory=Complaints)

    def note(self, text: str) -> None:
        """Tell something once."""
        if text not in self.notes:
            self.notes.append(text)

    def where(self, position: int) -> str:
        """Return "line L, column C" of a byte position."""
        line, column = self.source.line_column(position)
        return f"line {line}, column {column}"

    def documents(
        self, plan: jsonscan.Plan | Callable[[], jsonscan.Plan] | None = None, keep_partial: bool = False
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the objects of the file with where they stand; the others are complained of.

        With `keep_partial`, an object that is cut inside a planned list is yielded with what came before the cut.
        """
        for document, position in jsonscan.documents(self.source.data, plan):
            if isinstance(document, jsonscan.Loss):
                kind = "dropped, cut off" if document.cut else "dropped, not JSON"
                if keep_partial and document.partial:
                    kind = "read up to where it is cut off" if document.cut else "read up to what is not JSON"
                    yield document.partial, self.where(position)
                self.complaints.add(kind, f"{self.where(document.position)}: {document.message}")
            elif isinstance(document, dict):
                yield document, self.where(position)
            else:
                self.complaints.add("dropped, not an object", f"{self.where(position)}, found {str(document)[:20]!r}")

    def all_notes(self) -> list[str]:
        """Return what there is to tell, the file's own troubles first."""
        return [*self.source.notes, *self.notes, *self.complaints.notes()]
