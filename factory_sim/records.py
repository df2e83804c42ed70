"""The one base of every input record: frozen, strict, documented by its attribute docstrings; and the field types they share."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


def with_offset(moment: datetime) -> datetime:
    """The moment, if it names its UTC offset; time zones and daylight saving are not known inside."""
    if moment.tzinfo is None:
        raise ValueError("needs a UTC offset, e.g. 2026-07-06T00:00:00+00:00")
    return moment


def without_zone(raw: Any) -> Any:
    """The raw moment, unless it names a time zone: whether that is summer time would have to be guessed."""
    if isinstance(raw, str) and re.search(r"[A-Za-z]+/[A-Za-z]+|\b(?!UTC\b)[A-Z]{3,4}\b", raw):
        raise ValueError(f"{raw!r} names a time zone; give the UTC offset of that moment, e.g. 2026-07-06T00:00:00+02:00")
    return raw


Moment = Annotated[datetime, BeforeValidator(without_zone), AfterValidator(with_offset)]


class Record(BaseModel):
    """A frozen record in which unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
