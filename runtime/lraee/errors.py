"""Every error this project raises on purpose, in one tree.

    LraeeError
    ├── BundleError          a bundle is damaged, incomplete, newer than this code, or unsafe
    ├── ImageError           an image cannot be read or has a shape nobody can classify
    ├── LabelsError          labels are missing, empty, or cannot be embedded by this bundle
    ├── SettingsError        a setting of a model or a call is unknown, of another type, or out of its range
    ├── PolicyError          a policy asks for something the bundle does not have
    ├── DataError            a data set is missing, too small, or its splits overlap
    ├── TowerError           a checkpoint or architecture this project does not support
    ├── ParityError          an exported graph does not compute what torch computes
    ├── ExportError          an export cannot start or finish (target exists, bad options)
    ├── ForkError            a process was forked, and its thread pool did not come along
    └── MissingExtraError    an optional dependency is not installed

A message says what was met, what was wanted, and what to do next.

`ThreadsWarning` is no error: what was asked for is done, with fewer threads.
"""


class LraeeError(Exception):
    """Base of all errors raised on purpose; command lines print its message as one line."""


class BundleError(LraeeError):
    """A bundle is damaged, incomplete, of a newer format, or points outside its folder."""


class ImageError(LraeeError):
    """An image cannot be read, or an array is not uint8 (height, width, 3)."""


class LabelsError(LraeeError):
    """Labels are missing, empty, or need a text tower that this bundle does not carry."""


class SettingsError(LraeeError):
    """A setting such as a number of threads is unknown, of another type, or out of its range."""


class PolicyError(LraeeError):
    """A policy names an exit, operating point or share that the bundle does not have."""


class DataError(LraeeError):
    """A data set is missing, too small, unreadable, or two splits share an image."""


class TowerError(LraeeError):
    """A checkpoint or an architecture that cannot be exported, refused by name."""


class ParityError(LraeeError):
    """An exported graph differs from the torch model it was built from."""


class ExportError(LraeeError):
    """An export cannot start or finish: the target exists, or options contradict each other."""


class ForkError(LraeeError):
    """A model was loaded before a fork and needs threads that only the parent process has."""


class MissingExtraError(LraeeError):
    """An optional dependency is needed and not installed; the message has the install command."""


class ThreadsWarning(UserWarning):
    """Fewer threads run than were asked for, since a limit of the system leaves no room for more."""
