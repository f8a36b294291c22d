"""What a worker has to prove before its work counts."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to act: this window in this epoch. Whoever takes over bumps the epoch, and the old right is gone."""

    window: UUID
    epoch: int

    @property
    def tag(self) -> str:
        """As it stands in application_name after the role: `3f9c21ab/4`; `3f9c21ab/-` of a navigator, whom no take-over
        concerns."""
        return f"{self.window.hex[:8]}/{self.epoch or '-'}"
