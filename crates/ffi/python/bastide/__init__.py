"""Connections to virtual machines behind Azure Bastion.

`connect` gives a socket, `tunnel` a local port, `open_connection` the streams of asyncio. A `Client` holds a sign-in and
options for many of them; the functions of this module share clients that are closed when the program ends.
"""

from ._client import (
    Client,
    Statistics,
    Tunnel,
    connect,
    connect_async,
    open_connection,
    tunnel,
)
from ._error import Code, Error
from ._library import version
from ._options import AccessToken, Credential, TokenRequest

__all__ = [
    "AccessToken",
    "Client",
    "Code",
    "Credential",
    "Error",
    "Statistics",
    "TokenRequest",
    "Tunnel",
    "connect",
    "connect_async",
    "open_connection",
    "tunnel",
    "version",
]
__version__ = "0.1.0"
