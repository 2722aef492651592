"""Defines every error that this project raises on purpose, in one tree.

    LraeeError
    ├── BundleError          a bundle is damaged, incomplete, newer than this code, or unsafe
    ├── ImageError           an image cannot be read, or has a shape that cannot be classified
    ├── LabelsError          labels are missing, empty, or cannot be embedded by this bundle
    ├── SettingsError        a setting of a model or a call is unknown, of another type, or out of its range
    ├── PolicyError          a policy asks for something the bundle does not have
    ├── DataError            a data set is missing, too small, or its splits overlap
    ├── TowerError           a checkpoint or architecture this project does not support
    ├── ParityError          an exported graph does not compute what torch computes
    ├── ExportError          an export cannot start or finish (target exists, bad options)
    ├── ForkError            a process was forked, and its thread pool did not come along
    ├── ServiceError         images are not accepted any more: what would answer them was closed, or failed
    └── MissingExtraError    an optional dependency is not installed

A message says what was met, what was wanted, and what to do next. Several commands may print it, so it names an option
only after the command that has it (``lraee-export --exits all``); an option of the printing command is added by that
command, which finds in `LraeeError.setting` what to look for.

`ThreadsWarning` and `ImageWarning` are not errors: the call goes on, though perhaps not as it was meant.
"""

from __future__ import annotations

LONGEST_MESSAGE = 2000
"""Characters of a message. Beyond it the middle is left out: what was passed in by mistake may be a whole image."""


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a text that is longer than `most` characters, and say how much.

    >>> shortened("abcdefgh" * 100, 40)
    'abcdef... 788 characters left out ...gh'
    """
    if len(text) <= most:
        return text
    note = f"... {len(text) - most:,} characters left out ..."
    kept = max(most - len(note), 2)
    note = f"... {len(text) - kept:,} characters left out ..."
    head = kept * 2 // 3
    return f"{text[:head]}{note}{text[len(text) - (kept - head) :]}"


class LraeeError(Exception):
    """Base of all errors raised on purpose; command lines print its message as one line.

    Args:
        message: what was met, what was wanted, and what to do next; shortened to `LONGEST_MESSAGE`.
        setting: see the attribute.
    """

    setting: str
    """Which setting would let this pass, such as ``max_pixels``; empty where none would."""

    def __init__(self, message: str = "", *, setting: str = "") -> None:
        super().__init__(shortened(str(message), LONGEST_MESSAGE))
        self.setting = setting


class BundleError(LraeeError):
    """A bundle is damaged, incomplete, of a newer format, or points outside its folder."""


class ImageError(LraeeError):
    """An image cannot be read, or an array is not uint8 (height, width, 3)."""

    position: int | None = None
    """Of several images, which one: its place in the call, counted from 0. None where one image was given."""


class LabelsError(LraeeError):
    """Labels are missing, empty, or need a text tower that this bundle does not carry."""


class SettingsError(LraeeError):
    """A setting such as a number of threads is unknown, of another type, or out of its range."""


class PolicyError(LraeeError):
    """A policy names an exit, operating point or share that the bundle does not have."""


class DataError(LraeeError):
    """A data set is missing, too small, unreadable, or two splits share an image."""


class TowerError(LraeeError):
    """A checkpoint or an architecture cannot be exported; the message names it."""


class ParityError(LraeeError):
    """An exported graph differs from the torch model it was built from."""


class ExportError(LraeeError):
    """An export cannot start or finish: the target exists, or options contradict each other."""


class ForkError(LraeeError):
    """A model was loaded before a fork and needs threads that only the parent process has."""


class ServiceError(LraeeError):
    """Images are not accepted, or not answered, because what answers them was closed or has failed."""


class MissingExtraError(LraeeError):
    """An optional dependency is needed and not installed; the message has the install command."""


class ImageWarning(UserWarning):
    """An image was read, and probably not as it was meant: the message names it and says why."""


class ThreadsWarning(UserWarning):
    """Fewer threads run than were asked for, since a limit of the system leaves no room for more."""
