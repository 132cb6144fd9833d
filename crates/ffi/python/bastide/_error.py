"""What fails: one exception, with the numbers of the command line's exit codes."""

import enum
from typing import Any, Optional

from ._library import library, text


class Code(enum.IntEnum):
    """Why something failed. The numbers below 200 are the exit codes of the command line."""

    OURS = 1
    USAGE = 2
    SIGN_IN = 10
    MISSING_RIGHT = 11
    HOST_REFUSES = 12
    NOT_THERE = 13
    UNREACHABLE = 20
    BASTION = 21
    VM = 22
    TIMEOUT = 124
    MISUSE = 200
    FORKED = 201
    CLOSED = 202


class Error(Exception):
    """Something failed."""

    def __init__(self, code: int, message: str, hint: Optional[str] = None, request_id: Optional[str] = None) -> None:
        super().__init__(code, message, hint, request_id)
        #: One of `Code`, or a number that this version does not know.
        self.code: int = Code(code) if code in Code.__members__.values() else code
        #: What failed.
        self.message = message
        #: What to do next, where that is known.
        self.hint = hint
        #: The service's id of the request that failed, for a support request.
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


def check(error: Any) -> None:
    """Raises what a function of the library returns, if that is an error, and frees it."""
    if error is None:
        return
    hint, request_id = library.bastide_error_hint(error), library.bastide_error_request_id(error)
    raised = Error(
        library.bastide_error_code(error),
        text(library.bastide_error_message(error)),
        None if hint is None else text(hint),
        None if request_id is None else text(request_id),
    )
    library.bastide_error_free(error)
    raise raised
