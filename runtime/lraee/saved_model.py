"""What `pickle`, `copy` and the spawned processes of `multiprocessing` hold of a model: no weights, but where they are.

Sessions cannot be copied. So a copy opens the bundle again, by its path and the hash of its manifest, and makes
sessions of its own; labels, policy and reading are those that the model had when it was copied.
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
    """The state of a model without its sessions."""

    bundle: Bundle
    """Which in turn is pickled as path and hash."""
    settings: SessionSettings
    """As they were given: threads that were left to the machine are left to the one that opens it."""
    policy: Policy
    reading: Reading
    labels: Labels | None
    """None for those that the bundle was exported with."""

    def check(self) -> None:
        """Refuse settings that do not suit this machine.

        Raises:
            SettingsError: more threads than the cores here can run.
        """
        check_threads(self.settings.threads)
