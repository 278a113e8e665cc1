"""The actor through which the workers of a training report to the driver.

It imports no torch: its process runs on the head node beside the driver, and should need little memory.
"""

from collections.abc import Mapping
from typing import Any


class StatusActor:
    """Holds the workers' messages until the driver reads them."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self.failed: tuple[bool, str] | None = None
        self.interrupted = False

    def report(self, message: Mapping[str, Any]) -> None:
        """Adds a progress message."""
        self.messages.append(message)

    def take_messages(self) -> list[Mapping[str, Any]]:
        """All messages since the last call."""
        messages, self.messages = self.messages, []
        return messages

    def fail(self, user_error: bool, error: str) -> None:
        """Records an error that another try would meet again; the first one stays. Can the user mend it?"""
        self.failed = self.failed or (user_error, error)

    def failure(self) -> tuple[bool, str] | None:
        """The recorded error: whether the user can mend it, and its text."""
        return self.failed

    def interrupt(self) -> None:
        """Records that the workers stopped early because a node is about to be taken away; new ones go on."""
        self.interrupted = True

    def take_interrupted(self) -> bool:
        """Whether workers stopped so since the last call."""
        interrupted, self.interrupted = self.interrupted, False
        return interrupted
