"""``convscope completion``: what a shell needs to complete commands and flags."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script with which a shell completes convscope's commands and flags.

    Args:
        shell: Whose script.
    """
    from convscope.cli.main import app

    print(app.generate_completion(shell=shell))
