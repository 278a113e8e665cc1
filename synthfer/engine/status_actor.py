"""The board by which the workers of a training gang talk to its driver.

It knows no torch: its process starts beside those of the gang, on the head's memory, and has little to hold.
"""

from collections.abc import Mapping
from typing import Any


class StatusActor:
    """What workers say and the driver reads."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.failed: tuple[bool, str] | None = None
        self.interrupted = False

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Progress."""
        self.told.append(facts)

    def take(self) -> list[Mapping[str, Any]]:
        """All that was told since the last time."""
        told, self.told = self.told, []
        return told

    def fail(self, for_the_user: bool, error: str) -> None:
        """What would come again at every try; the first error stays. Is it the user's to mend?"""
        self.failed = self.failed or (for_the_user, error)

    def failure(self) -> tuple[bool, str] | None:
        """The error, if there is one."""
        return self.failed

    def interrupt(self) -> None:
        """The gang has ended before its work, since a node is about to leave; another gang goes on."""
        self.interrupted = True

    def take_interrupted(self) -> bool:
        """Whether a gang has ended so since the last time."""
        interrupted, self.interrupted = self.interrupted, False
        return interrupted
