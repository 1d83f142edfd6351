"""Objects as keys of caches."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Same(Generic[T]):
    """An object that never changes, as a key that only itself equals; who holds the key keeps the object.

    Specs of the catalogue are one object each, so that identity finds them at once where their fields take long.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
