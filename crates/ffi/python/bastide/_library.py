"""The C library: where it is, and its functions as bastide.h declares them. What they do is said there."""

import ctypes
import os
import sys
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Dict, List, Tuple


class Statistics(ctypes.Structure):
    """`bastide_statistics`."""

    _fields_ = [("opened", c_uint64), ("open", c_uint64), ("sent", c_uint64), ("received", c_uint64)]


Finalizer = ctypes.CFUNCTYPE(None, c_void_p)
TokenFunction = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
LogFunction = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_char_p, c_char_p)

# Handles are numbers: `c_void_p` for all of them. What the functions return, and what they take.
DECLARATIONS: Dict[str, Tuple[Any, List[Any]]] = {
    "bastide_error_code": (c_int32, [c_void_p]),
    "bastide_error_message": (c_char_p, [c_void_p]),
    "bastide_error_hint": (c_char_p, [c_void_p]),
    "bastide_error_request_id": (c_char_p, [c_void_p]),
    "bastide_error_free": (None, [c_void_p]),
    "bastide_options_new": (c_void_p, [POINTER(c_void_p)]),
    "bastide_options_set": (c_void_p, [c_void_p, c_char_p, c_char_p]),
    "bastide_options_use_environment": (c_void_p, [c_void_p]),
    "bastide_options_set_token_function": (c_void_p, [c_void_p, TokenFunction, c_void_p, Finalizer]),
    "bastide_options_set_log_function": (c_void_p, [c_void_p, c_uint32, LogFunction, c_void_p, Finalizer]),
    "bastide_options_free": (None, [c_void_p]),
    "bastide_token_call_scope": (c_char_p, [c_void_p]),
    "bastide_token_call_tenant": (c_char_p, [c_void_p]),
    "bastide_token_call_claims": (c_char_p, [c_void_p]),
    "bastide_token_call_is_fresh": (c_int32, [c_void_p]),
    "bastide_token_call_give": (c_void_p, [c_void_p, c_char_p, c_int64]),
    "bastide_token_call_refuse": (c_void_p, [c_void_p, c_char_p]),
    "bastide_client_new": (c_void_p, [c_void_p, POINTER(c_void_p)]),
    "bastide_client_next_event": (c_void_p, [c_void_p, c_int64, POINTER(c_void_p)]),
    "bastide_client_statistics": (c_void_p, [c_void_p, POINTER(Statistics), c_size_t]),
    "bastide_client_close": (c_void_p, [c_void_p, c_uint64, POINTER(c_uint64)]),
    "bastide_client_free": (None, [c_void_p]),
    "bastide_connect": (c_void_p, [c_void_p, c_void_p, POINTER(c_int), POINTER(c_void_p)]),
    "bastide_connection_id": (c_uint64, [c_void_p]),
    "bastide_connection_statistics": (c_void_p, [c_void_p, POINTER(Statistics), c_size_t]),
    "bastide_connection_wait": (c_void_p, [c_void_p, c_int64, POINTER(c_int)]),
    "bastide_connection_reason": (c_char_p, [c_void_p]),
    "bastide_connection_free": (None, [c_void_p]),
    "bastide_tunnel_open": (c_void_p, [c_void_p, c_void_p, POINTER(c_void_p)]),
    "bastide_tunnel_port": (c_uint16, [c_void_p]),
    "bastide_tunnel_address": (c_char_p, [c_void_p]),
    "bastide_tunnel_statistics": (c_void_p, [c_void_p, POINTER(Statistics), c_size_t]),
    "bastide_tunnel_close": (c_void_p, [c_void_p, c_uint64, POINTER(c_uint64)]),
    "bastide_tunnel_free": (None, [c_void_p]),
    "bastide_event_name": (c_char_p, [c_void_p]),
    "bastide_event_connection": (c_uint64, [c_void_p]),
    "bastide_event_json": (c_char_p, [c_void_p]),
    "bastide_event_free": (None, [c_void_p]),
    "bastide_doctor": (c_void_p, [c_void_p, c_void_p, POINTER(c_void_p)]),
    "bastide_report_code": (c_int32, [c_void_p]),
    "bastide_report_json": (c_char_p, [c_void_p]),
    "bastide_report_free": (None, [c_void_p]),
    "bastide_version": (c_char_p, []),
}


def _find() -> str:
    """The library that a variable names, the package's own, or an installed one."""
    named = os.environ.get("BASTIDE_LIBRARY")
    if named:
        return named
    system = {"darwin": "libbastide.0.dylib", "win32": "bastide.dll"}.get(sys.platform, "libbastide.so.0")
    for name in (system, "libbastide.so", "libbastide.dylib"):
        beside = Path(__file__).with_name(name)
        if beside.exists():
            return str(beside)
    return system


def _load() -> Tuple[ctypes.CDLL, ctypes.PyDLL]:
    path = _find()
    try:
        library, holding = ctypes.CDLL(path), ctypes.PyDLL(path)
    except OSError as error:
        raise ImportError(
            f"the library of bastide cannot be loaded: {error}; install libbastide, or name it by BASTIDE_LIBRARY"
        ) from error
    for name, (result, arguments) in DECLARATIONS.items():
        for each in (library, holding):
            function = getattr(each, name)
            function.restype, function.argtypes = result, arguments
    return library, holding


# The second one keeps the interpreter's lock while it is in the library: for calls that must not meet another thread's
# `os.environ`.
library, holding = _load()


def text(value: Any) -> str:
    """Text of the library's."""
    return value.decode("utf-8", "replace") if value is not None else ""


def version() -> str:
    """The version of the library."""
    return text(library.bastide_version())
