"""The package's logger, made when there is something to say.

Importing `logging` takes a third of the time that `import fast_litellm` may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def logger() -> logging.Logger:
    """The logger named `fast_litellm`."""
    import logging

    return logging.getLogger("fast_litellm")
