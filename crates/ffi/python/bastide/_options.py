"""What a client, a connection or a tunnel is told, and the functions that the library calls."""

import contextlib
import logging
import os
import re
import threading
from ctypes import byref, c_void_p
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from ._error import check
from ._library import Finalizer, LogFunction, TokenFunction, holding, library, text

#: The value of an option.
Value = Union[str, int, bool, "os.PathLike[str]"]

# Options that belong to a client, and to none of its connections.
CLIENT = frozenset(
    "ca-bundle client-id cloud credential exec-command keepalive no-cache proxy subscription tenant".split()
)


# As `bastide_options_set` tells variables from options.
_VARIABLE = re.compile("[A-Z][A-Z0-9_]*|(https?|all|no)_proxy")


class TokenRequest(NamedTuple):
    """What an access token is asked for."""

    #: Such as `https://management.azure.com/.default`.
    scope: str
    #: The tenant that has to issue it, unless any will do.
    tenant: Optional[str]
    #: Claims that a service demands, as JSON.
    claims: Optional[str]
    #: Whether a token has been refused before, so that one from a cache won't do.
    is_fresh: bool


class AccessToken(NamedTuple):
    """A token, and its end in seconds since 1970: what `azure.core.credentials.AccessToken` is, too."""

    token: str
    expires_on: int


#: A way to sign in: its name, a function, or a credential of `azure-identity`, which has `get_token`.
Credential = Union[str, Callable[[TokenRequest], Tuple[str, int]], Any]

# What the library may still call, by the number that it is given as context; removed by its finalizer.
_held: Dict[int, Tuple[Any, ...]] = {}
_newest = 0
_under_way = 0
# Guards the three.
_changed = threading.Condition()


def _hold(*things: Any) -> int:
    global _newest
    with _changed:
        _newest += 1
        _held[_newest] = things
        return _newest


@contextlib.contextmanager
def _called_back() -> Iterator[None]:
    global _under_way
    with _changed:
        _under_way += 1
    try:
        yield
    finally:
        with _changed:
            _under_way -= 1
            _changed.notify_all()


def wait_for_callbacks() -> None:
    """Waits until no function is being called, as the interpreter does for threads of Python's: one that comes back when the
    interpreter is gone takes the process with it."""
    with _changed:
        _changed.wait_for(lambda: _under_way == 0)


def _forget_after_fork() -> None:
    global _changed, _under_way
    # The threads that were under way are the parent's.
    _changed, _under_way = threading.Condition(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _finalize(context: Optional[int]) -> None:
    if context is not None:
        _held.pop(context, None)


def _give_token(context: Optional[int], call: int) -> None:
    with _called_back():
        _ask_for_token(context, call)


def _ask_for_token(context: Optional[int], call: int) -> None:
    try:
        get = _held[context or 0][0]
        tenant, claims = library.bastide_token_call_tenant(call), library.bastide_token_call_claims(call)
        request = TokenRequest(
            text(library.bastide_token_call_scope(call)),
            None if tenant is None else text(tenant),
            None if claims is None else text(claims),
            bool(library.bastide_token_call_is_fresh(call)),
        )
        token, expires_on = get(request)
        check(library.bastide_token_call_give(call, token.encode(), int(expires_on)))
    except BaseException as error:  # There is nobody above who could take it.
        message = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        library.bastide_error_free(library.bastide_token_call_refuse(call, message.replace(b"\0", b" ")))


def _log(context: Optional[int], level: int, target: bytes, message: bytes) -> None:
    with _called_back(), contextlib.suppress(BaseException):  # As above; a line is lost.
        logger: logging.Logger = _held[context or 0][0]
        logger.log(_LEVELS[level], "%s: %s", text(target), text(message))


# They live as long as the library may call them.
_FINALIZE, _GIVE_TOKEN, _LOG = Finalizer(_finalize), TokenFunction(_give_token), LogFunction(_log)

_LEVELS = [logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG]


def _function_of(credential: Any) -> Callable[[TokenRequest], Tuple[str, int]]:
    get_token = getattr(credential, "get_token", None)
    if get_token is None:
        if not callable(credential):
            raise TypeError("credential has to be a name, a function, or have get_token")
        return credential  # type: ignore[no-any-return]

    def get(request: TokenRequest) -> Tuple[str, int]:
        more: Dict[str, Any] = {}
        if request.tenant is not None:
            more["tenant_id"] = request.tenant
        if request.claims is not None:
            more["claims"] = request.claims
        answer = get_token(request.scope, **more)
        return answer.token, answer.expires_on

    return get


def spoken(value: Value) -> str:
    """An option's value as the command line writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


class Options:
    """Options of the library's, freed at the end of a `with`."""

    def __init__(self, values: Mapping[str, Optional[Value]]) -> None:
        self.handle = c_void_p()
        check(library.bastide_options_new(byref(self.handle)))
        try:
            for name, value in values.items():
                if value is not None:
                    self.set(name, spoken(value))
        except BaseException:
            self.free()
            raise

    def set(self, name: str, value: str) -> None:
        if "\0" in name or "\0" in value:
            raise ValueError(f"{name!r}: a value ends at a null character")
        check(library.bastide_options_set(self.handle, name.encode(), value.encode()))

    def use_environment(self, environment: Union[bool, Mapping[str, str]]) -> None:
        if environment is True:
            check(holding.bastide_options_use_environment(self.handle))
        elif environment is not False:
            # The library knows variables by their names' form; a process has others, too.
            for name, value in environment.items():
                if _VARIABLE.fullmatch(name) and "\0" not in value:
                    self.set(name, value)

    def use_credential(self, credential: Credential) -> None:
        if isinstance(credential, str):
            self.set("credential", credential)
            return
        context = _hold(_function_of(credential))
        check(library.bastide_options_set_token_function(self.handle, _GIVE_TOKEN, context, _FINALIZE))

    def use_logger(self, logger: logging.Logger) -> None:
        levels: List[int] = [index for index, level in enumerate(_LEVELS) if logger.isEnabledFor(level)]
        if levels:
            # The library's own `trace` would be too much of a good thing.
            level = min(max(levels), 3)
            context = _hold(logger)
            check(library.bastide_options_set_log_function(self.handle, level, _LOG, context, _FINALIZE))

    def free(self) -> None:
        library.bastide_options_free(self.handle)
        self.handle = c_void_p()

    def __enter__(self) -> "Options":
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
