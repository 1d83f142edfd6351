"""Where the file of a name is."""

from __future__ import annotations

from pathlib import Path


def at_home(name: str | Path) -> Path:
    """The path with the user's folder in place of `~`; as it is written where nobody is called so."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)
