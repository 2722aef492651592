"""Describes a model for `pickle`, `copy` and spawned processes: without weights, but with the place where they are.

Sessions cannot be copied. A copy therefore opens the bundle again, by its path and the hash of its manifest, and makes
new sessions; labels, policy and reading are those that the model had when it was copied.
"""

from __future__ import annotations

from dataclasses import dataclass

from lraee.bundle.folder import Bundle
from lraee.checks import check_threads
from lraee.labels.matrix import Labels
from lraee.ort.sessions import SessionSettings
from lraee.policies import Policy
from lraee.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """Holds the state of a model without its sessions."""

    bundle: Bundle
    """The bundle, which is pickled as path and hash."""
    settings: SessionSettings
    """The settings as they were given: where threads were omitted, the machine that opens the copy chooses them."""
    policy: Policy
    reading: Reading
    labels: Labels | None
    """The labels; None for those that the bundle was exported with."""

    def check(self) -> None:
        """Refuse settings that do not suit this machine.

        Raises:
            SettingsError: more threads than the cores here can run.
        """
        check_threads(self.settings.threads)
