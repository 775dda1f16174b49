"""One dimension of a metric: a name and a value; part of the handler kit."""

from __future__ import annotations


class Dimension:
    """What a metric is counted by, written `name:value`."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, str]:
        """The dimension as a mapping."""
        return {"name": self.name, "value": self.value}
