"""Clients, their connections and tunnels, and the functions that need no client of their own."""

import asyncio
import atexit
import contextlib
import ctypes
import json
import logging
import os
import socket
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from ctypes import byref, c_int, c_uint64, c_void_p
from types import TracebackType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Hashable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from . import _library
from ._error import Code, Error, check
from ._library import library, text
from ._options import CLIENT, Credential, Options, Value, spoken, wait_for_callbacks

T = TypeVar("T")

#: How long the end of a client or a tunnel may take, in seconds, unless it is told otherwise.
GRACE = 10.0


class Statistics(NamedTuple):
    """What was carried so far."""

    #: Connections so far, also those that could not be opened.
    opened: int
    #: Those of them that are not over yet.
    open: int
    #: Bytes to VMs.
    sent: int
    #: Bytes from VMs.
    received: int


def _statistics(function: Any, handle: c_void_p) -> Statistics:
    place = _library.Statistics()
    check(function(handle, byref(place), ctypes.sizeof(place)))
    return Statistics(place.opened, place.open, place.sent, place.received)


def _wait(call: Callable[[], T], undo: Optional[Callable[[T], None]] = None) -> T:
    """Has a call carried out that may wait. On the main thread another one waits, so that Ctrl-C is heard: what the call
    comes to afterwards is undone."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    future: "Future[T]" = Future()
    try:
        _carry_out(call, future)
        return future.result()
    except BaseException:  # Of a signal handler, or of the call itself, of which there is nothing to undo.
        _undo_later(future, undo)
        raise


def _carry_out(call: Callable[[], T], future: "Future[T]") -> None:
    """Has a call carried out by a thread of its own, which tells `future` what it comes to."""

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="bastide-wait", daemon=True).start()


def _undo_later(future: "Future[T]", undo: Optional[Callable[[T], None]]) -> None:
    def over(done: "Future[T]") -> None:
        if undo is not None and not done.cancelled() and done.exception() is None:
            undo(done.result())

    future.add_done_callback(over)


def _milliseconds(seconds: float) -> int:
    return max(0, round(min(seconds, _FOREVER) * 1000))


#: As good as no limit, in seconds, and no more than the library counts.
_FOREVER = 1e12


class Tunnel:
    """A local port, or Unix socket, that leads to a port of a VM. `with` closes it."""

    def __init__(self, client: "Client", handle: c_void_p) -> None:
        # It ends with its client, which therefore lives as long as it does.
        self._client = client
        self._handle = handle
        self._finalizer = weakref.finalize(self, library.bastide_tunnel_free, handle)
        #: The local port; 0 for a Unix socket.
        self.port: int = library.bastide_tunnel_port(handle)
        #: Where it listens, such as `127.0.0.1:50022`, or the path of a Unix socket.
        self.address: str = text(library.bastide_tunnel_address(handle))

    @property
    def statistics(self) -> Statistics:
        """What it has carried so far."""
        return _statistics(library.bastide_tunnel_statistics, self._handle)

    def close(self, grace: float = GRACE) -> int:
        """Ends it and its connections; how many sessions could not be given back. Closing it again does nothing."""
        if not self._finalizer.alive:
            return 0
        leaked = c_uint64()
        try:
            _wait(
                lambda: check(library.bastide_tunnel_close(self._handle, _milliseconds(grace), byref(leaked)))
            )
        except Error as error:
            if error.code not in (Code.CLOSED, Code.FORKED):
                raise
        finally:
            self._finalizer()
        return leaked.value

    def __enter__(self) -> "Tunnel":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class Client:
    """Azure as one identity sees it, for as many connections and tunnels as you like. `with` closes it.

    Options are the flags of the command line, with `_` for `-`; those of connections and tunnels are defaults for its
    own. `credential` is the name of a way to sign in, a credential of `azure-identity`, or a function that takes a
    `TokenRequest` and returns a token and its end. `environment` is True for that of the process, or a mapping. What
    happens inside goes to `logger`, where there is one.
    """

    def __init__(
        self,
        *,
        credential: Optional[Credential] = None,
        environment: Union[bool, Mapping[str, str]] = True,
        logger: Optional[logging.Logger] = None,
        **options: Optional[Value],
    ) -> None:
        self._handle = c_void_p()
        # Events that a call has got whose caller was interrupted.
        self._missed: Deque[Dict[str, Any]] = deque()
        with Options(options) as told:
            told.use_environment(environment)
            if credential is not None:
                told.use_credential(credential)
            if logger is not None:
                told.use_logger(logger)
            _wait(
                lambda: check(library.bastide_client_new(told.handle, byref(self._handle))),
                lambda _: library.bastide_client_free(self._handle),
            )
        self._finalizer = weakref.finalize(self, library.bastide_client_free, self._handle)
        # The interpreter must be there as long as the library may call into it: `_close_all` sees to that.
        self._finalizer.atexit = False
        _clients.add(self)

    def connect(self, target: Optional[str] = None, port: Optional[int] = None, **options: Optional[Value]) -> socket.socket:
        """Opens a connection to a port of a VM: a connected socket, which ends it when it is closed.

        `target` is a VM's name, a resource id or a private address. Whether anybody listens at the port shows by the first
        byte alone: where nobody does the socket ends, and an event `error` says why. The client lives as long as the socket
        object; one that was detached from its descriptor does not count."""
        return _wait(lambda: self._connect(target, port, options), socket.socket.close)

    def _connect(
        self, target: Optional[str], port: Optional[int], options: Mapping[str, Optional[Value]]
    ) -> socket.socket:
        descriptor = c_int(-1)
        with Options({**options, "target": target, "resource-port": port}) as told:
            check(library.bastide_connect(self._handle, told.handle, byref(descriptor), None))
        connection = socket.socket(fileno=descriptor.value)
        _owners[connection] = self
        return connection

    async def connect_async(
        self, target: Optional[str] = None, port: Optional[int] = None, **options: Optional[Value]
    ) -> socket.socket:
        """The same within asyncio: for `asyncssh.connect(sock=…)`, say."""
        future: "Future[socket.socket]" = Future()
        _carry_out(lambda: self._connect(target, port, options), future)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            _undo_later(future, socket.socket.close)
            raise

    async def open_connection(
        self, target: Optional[str] = None, port: Optional[int] = None, **options: Optional[Value]
    ) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The same as streams: `asyncio.open_connection` for a port of a VM."""
        sock = await self.connect_async(target, port, **options)
        try:
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    def tunnel(
        self,
        target: Optional[str] = None,
        port: Optional[int] = None,
        *,
        local_port: Optional[int] = None,
        **options: Optional[Value],
    ) -> Tunnel:
        """Opens a local port, any free one unless `local_port` names it, that leads to `port` of a VM. Returns when
        connections can be opened."""

        def open_tunnel() -> Tunnel:
            handle = c_void_p()
            with Options({**options, "target": target, "resource-port": port, "port": local_port}) as told:
                check(library.bastide_tunnel_open(self._handle, told.handle, byref(handle)))
            return Tunnel(self, handle)

        return _wait(open_tunnel, lambda tunnel: None if tunnel.close() else None)

    def doctor(
        self, target: Optional[str] = None, port: Optional[int] = None, **options: Optional[Value]
    ) -> Dict[str, Any]:
        """Which link of the way to a port of a VM is broken: what `bastide doctor` says. `broken` is its name or None,
        `findings` has what became of each."""

        def examine() -> Dict[str, Any]:
            report = c_void_p()
            with Options({**options, "target": target, "resource-port": port}) as told:
                check(library.bastide_doctor(self._handle, told.handle, byref(report)))
            try:
                said: Dict[str, Any] = json.loads(library.bastide_report_json(report))
                return said
            finally:
                library.bastide_report_free(report)

        return _wait(examine)

    def next_event(self, timeout: Optional[float] = None) -> Optional[Dict[str, Any]]:
        """The next event: what `bastide tunnel -o json` prints. None when none comes within `timeout` seconds."""
        limit = -1 if timeout is None else _milliseconds(timeout)

        def pull() -> Optional[Dict[str, Any]]:
            event = c_void_p()
            check(library.bastide_client_next_event(self._handle, limit, byref(event)))
            if not event:
                return None
            try:
                told: Dict[str, Any] = json.loads(library.bastide_event_json(event))
                return told
            finally:
                library.bastide_event_free(event)

        with contextlib.suppress(IndexError):
            return self._missed.popleft()
        return _wait(pull, lambda event: None if event is None else self._missed.append(event))

    def events(self) -> Iterator[Dict[str, Any]]:
        """Every event until the client is closed: for a thread of its own."""
        while True:
            try:
                event = self.next_event()
            except Error as error:
                if error.code == Code.CLOSED:
                    return
                raise
            if event is not None:
                yield event

    @property
    def statistics(self) -> Statistics:
        """What all connections and tunnels have carried so far."""
        return _statistics(library.bastide_client_statistics, self._handle)

    def close(self, grace: float = GRACE) -> int:
        """Ends everything within `grace` seconds; how many sessions could not be given back. Closing it again does
        nothing."""
        leaked = c_uint64()
        try:
            _wait(
                lambda: check(library.bastide_client_close(self._handle, _milliseconds(grace), byref(leaked)))
            )
        except Error as error:
            if error.code not in (Code.CLOSED, Code.FORKED):
                raise
        return leaked.value

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()

# The clients of sockets, which end with them.
_owners: "weakref.WeakKeyDictionary[socket.socket, Client]" = weakref.WeakKeyDictionary()


def _close_all() -> None:
    # Without a thread of its own: at this time there are no new ones (Python 3.12).
    for client in list(_clients):
        error = library.bastide_client_close(client._handle, _milliseconds(GRACE), None)
        library.bastide_error_free(error)
    wait_for_callbacks()


atexit.register(_close_all)

# Clients of the functions below, by process and by what they were told; that is kept, so that its identity is its own.
_shared: Dict[Tuple[object, ...], Tuple[Client, Dict[str, Any]]] = {}
_shared_lock = threading.Lock()


def _divide(options: Mapping[str, Any]) -> Tuple[Client, Dict[str, Any]]:
    """The shared client that has been told these options, and those of them that are a connection's."""
    of_client = {name: options[name] for name in options if name in _CLIENT_WORDS and options[name] is not None}
    rest = {name: value for name, value in options.items() if name not in _CLIENT_WORDS}
    told = {name: value if name in _WORDS else spoken(value) for name, value in of_client.items()}
    key = (os.getpid(), *((name, _identity(told[name])) for name in sorted(told)))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = (Client(**of_client), of_client)
        return _shared[key][0], rest


def _identity(value: Any) -> Any:
    """What two values have in common that mean the same, such as a method that was bound twice."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return value if isinstance(value, Hashable) else id(value)


def _forget_after_fork() -> None:
    global _shared_lock
    # Some other thread of the parent may have had it.
    _shared_lock = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)

_WORDS = frozenset(["credential", "environment", "logger"])
_CLIENT_WORDS = _WORDS | CLIENT | frozenset(name.replace("-", "_") for name in CLIENT)


def connect(target: Optional[str] = None, port: Optional[int] = None, **options: Any) -> socket.socket:
    """`Client.connect` with a client that is shared by all who are told the same; options of both."""
    client, rest = _divide(options)
    return client.connect(target, port, **rest)


async def connect_async(target: Optional[str] = None, port: Optional[int] = None, **options: Any) -> socket.socket:
    """`Client.connect_async`, as `connect`."""
    client, rest = await asyncio.get_running_loop().run_in_executor(None, _divide, options)
    return await client.connect_async(target, port, **rest)


async def open_connection(
    target: Optional[str] = None, port: Optional[int] = None, **options: Any
) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """`Client.open_connection`, as `connect`."""
    client, rest = await asyncio.get_running_loop().run_in_executor(None, _divide, options)
    return await client.open_connection(target, port, **rest)


def tunnel(
    target: Optional[str] = None, port: Optional[int] = None, *, local_port: Optional[int] = None, **options: Any
) -> Tunnel:
    """`Client.tunnel`, as `connect`."""
    client, rest = _divide(options)
    return client.tunnel(target, port, local_port=local_port, **rest)
