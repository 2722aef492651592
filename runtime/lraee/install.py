"""Names the command that adds an extra to the installed package, so that every message names the same one.

pip reads what an extra needs from the package that is installed, and looks for `lraee` nowhere else. So the command
works wherever a message can name it, whether the package came from an index, from a wheel or from a checkout.
"""

from typing import Literal, TypeAlias

Extra: TypeAlias = Literal["image", "serve", "export", "openvino", "ray"]
"""The extras of pyproject.toml."""


def install_command(extra: Extra) -> str:
    """Give the shell command that installs what an extra needs.

    >>> install_command("image")
    "pip install 'lraee[image]'"
    """
    return f"pip install 'lraee[{extra}]'"
