"""The exception of this package."""

from __future__ import annotations


class Error(Exception):
    """The command failed.

    `message` is what it said, `hint` the next step or "", and `status` its exit status: 1 for a
    failure, 2 for wrong flags. `str(error)` is the message and, on a second line, the hint.
    """

    def __init__(self, message: str, hint: str = "", status: int = 1) -> None:
        super().__init__(message, hint, status)
        self.message, self.hint, self.status = message, hint, status

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message
