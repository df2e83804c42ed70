"""The one base of every input record: frozen, strict, documented by its attribute docstrings."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record in which unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
