"""Makes an equal provider again without a second check: a program may make one in each request."""

from __future__ import annotations

import functools
from contextlib import suppress
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import WeakValueDictionary

from tokenmw.providers.base import Provider, check_provider
from tokenmw.providers.client_certificate import ClientCertificate
from tokenmw.providers.dpop import DPoPKey
from tokenmw.providers.private_key_jwt import PrivateKeyJWT
from tokenmw.providers.secret_sources import EnvSecret, FileSecret
from tokenmw.providers.subject import SubjectToken
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["reuses_checks"]

P = TypeVar("P", bound=type[Provider])

# By their exact types: 1, 1.0 and True are equal, and a subclass of str may compare as it likes. The others hold no
# function of the program's, which may refer to a provider that would then stay.
_PLAIN: Final = frozenset(
    {
        str,
        bool,
        int,
        float,
        type(None),
        ClientCertificate,
        DPoPKey,
        EnvSecret,
        FileSecret,
        PrivateKeyJWT,
        SubjectToken,
    }
)


class _Checked(Unpicklable):
    """The attributes of a provider after all checks, each with the function that sets it in another object.

    Each provider that has them refers to it, so they are forgotten with the last of these.
    """

    __slots__ = ("__weakref__", "attributes")

    def __init__(self, attributes: list[tuple[Callable[..., None], Any]]) -> None:
        self.attributes = attributes


_checked: Final[WeakValueDictionary[tuple[object, ...], _Checked]] = WeakValueDictionary()


def reuses_checks(cls: P) -> P:
    """Let new objects of a class take the attributes of a living object that was made with the same options.

    Options that are neither plain values nor lists and dicts of text, such as functions, are checked each time, and so
    are those of subclasses, whose `identity` may depend on anything.
    """
    made: Any = cls
    check: Callable[..., None] = made.__init__
    members = [
        member
        for base in cls.__mro__
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType) and name != "_checked"
    ]

    @functools.wraps(check)
    def initialise(self: Provider, *args: Any, **options: Any) -> None:
        # An object that has its attributes is frozen, and `check` refuses it.
        reusable = type(self) is cls and not args and not hasattr(self, "_checked")
        key = _key(cls, options) if reusable else None
        found = None if key is None else _checked.get(key)
        if found is not None:
            for write, value in found.attributes:
                write(self, value)
        else:
            try:
                check(self, *args, **options)
                if key is None:
                    return
                if not self.depends_on_request:  # else its credential is complete only with a request
                    check_provider(self)
                    hash(self)
            except BaseException:
                args, options, key = (), {}, None  # error reports show the variables of each frame
                raise
            found = _checked[key] = _Checked(_attributes_of(self, members))
        object.__setattr__(self, "_checked", found)

    made.__init__ = initialise
    return cls


def _attributes_of(provider: Provider, members: list[MemberDescriptorType]) -> list[tuple[Callable[..., None], Any]]:
    found: list[tuple[Callable[..., None], Any]] = []
    for member in members:
        with suppress(AttributeError):  # not every attribute is set
            found.append((member.__set__, member.__get__(provider)))
    return found


def _key(cls: type[Provider], options: Mapping[str, Any]) -> tuple[object, ...] | None:
    kinds = tuple(map(type, options.values()))
    if _PLAIN.issuperset(kinds):
        return (cls, kinds, *options.items())
    plain: list[object] = [cls, kinds]
    for name, value in options.items():
        if type(value) in _PLAIN:
            plain.append((name, value))
            continue
        texts = _texts_in(value)
        if texts is None:
            return None
        plain.append((name, *texts))
    return tuple(plain)


def _texts_in(value: object) -> tuple[str, ...] | None:
    """Return the texts of a list, tuple or dict that has no other values; None for anything else."""
    texts: list[object]
    if type(value) in (list, tuple):
        texts = list(cast("Sequence[object]", value))
    elif type(value) is dict:
        texts = [text for pair in cast("dict[object, object]", value).items() for text in pair]
    else:
        return None
    return cast("tuple[str, ...]", tuple(texts)) if all(type(text) is str for text in texts) else None
