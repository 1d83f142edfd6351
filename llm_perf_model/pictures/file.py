"""Files of pictures: checked before anything is computed for them, then written whole."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self, cast, get_args

from ..errors import RequestError
from ..report.export import PictureFormat, check_writable, write_bytes

if TYPE_CHECKING:
    from .canvas import Picture

ENDINGS: Final[tuple[str, ...]] = get_args(PictureFormat)


class PictureFile(NamedTuple):
    """A place for a picture, and the format that its name ends with."""

    path: str
    form: PictureFormat

    @classmethod
    def of(cls, path: str) -> Self:
        """The file of a path.

        Raises:
            RequestError: it ends in no known format or cannot be written.
        """
        ending = Path(path).suffix.lower().removeprefix(".")
        if ending not in ENDINGS:
            near = difflib.get_close_matches(ending, ENDINGS, n=1)
            hint = f"; did you mean .{near[0]}?" if near else ""
            raise RequestError(f"picture: {path} ends in none of .{', .'.join(ENDINGS)}{hint}")
        check_writable(path, "picture")
        return cls(path, cast("PictureFormat", ending))

    def write(self, picture: Picture) -> str:
        """Write it, whole or not at all; the line that says so."""
        write_bytes(self.path, picture.rendered(self.form), "picture")
        return f"picture written: {self.path}"
