"""Everything that needs no other package, on any Python that the package is for."""

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import bastide

PLACE = {"name": "bastion", "resource_group": "demo"}
VM = os.environ["VM"]


def echo(stream: socket.socket) -> bytes:
    with stream:
        stream.sendall(b"hello")
        back = b""
        while len(back) < 5:
            more = stream.recv(5)
            assert more, "it ended early"
            back += more
        return back


def until_closed(client: bastide.Client, connections: int) -> None:
    """Waits for so many ends more."""
    while connections:
        event = client.next_event(60)
        assert event is not None, "not every connection ends"
        connections -= event["event"] == "closed"


def sockets_and_tunnels() -> None:
    assert bastide.version() == bastide.__version__
    with bastide.Client(**PLACE) as client:
        assert echo(client.connect(VM, 7)) == b"hello"
        assert echo(client.connect(target_resource_id=VM, port=7)) == b"hello"
        with client.tunnel(VM, 7) as tunnel:
            assert tunnel.port > 0 and tunnel.address == f"127.0.0.1:{tunnel.port}"
            assert echo(socket.create_connection(("127.0.0.1", tunnel.port))) == b"hello"
            until_closed(client, 3)
            assert tunnel.statistics == (1, 0, 5, 5), tunnel.statistics
        assert tunnel.close() == 0
        path = os.path.join(os.environ["HOME"], "echo.sock")
        with client.tunnel(VM, forward=f"{path}:7") as tunnel:
            assert (tunnel.port, tunnel.address) == (0, path)
            stream = socket.socket(socket.AF_UNIX)
            stream.connect(path)
            assert echo(stream) == b"hello"
        until_closed(client, 1)
        assert client.statistics == (4, 0, 20, 20), client.statistics
    assert client.close() == 0


def functions_share_a_client() -> None:
    assert echo(bastide.connect(VM, 7, **PLACE)) == b"hello"
    with bastide.tunnel(VM, port=7, **PLACE) as tunnel:
        assert echo(socket.create_connection(("127.0.0.1", tunnel.port))) == b"hello"
    # In several threads at once.
    threads = [threading.Thread(target=lambda: echo(bastide.connect(VM, 7, **PLACE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def what_a_client_has_opened_keeps_it() -> None:
    def of_nobody(opens):
        return opens(bastide.Client(**PLACE))

    stream = of_nobody(lambda client: client.connect(VM, 7))
    tunnel = of_nobody(lambda client: client.tunnel(VM, 7))
    gc.collect()
    assert echo(stream) == b"hello"
    assert echo(socket.create_connection(("127.0.0.1", tunnel.port))) == b"hello"
    assert tunnel.close() == 0
    # After its client it is closed already.
    with bastide.Client(**PLACE) as client:
        tunnel = client.tunnel(VM, 7)
    assert tunnel.close() == 0


def one_client_for_all_who_say_the_same() -> None:
    class OfAVault:
        def get(self, request):
            return os.environ["TOKEN"], time.time() + 3600

    vault, shared = OfAVault(), bastide._client._shared
    before = len(shared)
    for _ in range(3):
        # Each time another object, which means the same; and not all of them are variables of ours.
        environment = {**os.environ, "_": "x", "target": "x"}
        assert echo(bastide.connect(VM, 7, credential=vault.get, environment=environment, **PLACE)) == b"hello"
    assert len(shared) == before + 1


def streams_of_asyncio() -> None:
    async def talk() -> None:
        reader, writer = await bastide.open_connection(VM, 7, **PLACE)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()

    async def all_of_it() -> None:
        await asyncio.gather(*(talk() for _ in range(5)))
        # Nobody waits for the connection any more: it is closed when it is there.
        try:
            await asyncio.wait_for(bastide.connect_async(VM, 7, **PLACE), 0.001)
        except asyncio.TimeoutError:
            pass

    asyncio.run(all_of_it())


def errors() -> None:
    def fails(call, code: bastide.Code, said: str) -> bastide.Error:
        try:
            call()
        except bastide.Error as error:
            assert error.code is code and said in error.message, (error.code, error.message)
            assert error.hint in str(error) if error.hint else True
            return error
        raise AssertionError(f"{said}: nothing failed")

    with bastide.Client(**PLACE) as client:
        error = fails(lambda: client.connect(VM, 7, name="nowhere"), bastide.Code.NOT_THERE, "'nowhere'")
        assert error.hint
        fails(lambda: client.connect(VM), bastide.Code.USAGE, "no port of the VM is named")
        fails(lambda: client.connect(VM, 7, tenant="other"), bastide.Code.USAGE, "'tenant' is an option of clients")
        fails(lambda: client.tunnel(VM, 7, bind="0.0.0.0"), bastide.Code.USAGE, "reached from other machines")
        assert client.doctor(VM, 22)["broken"] is None
        assert client.doctor("web-01", 81)["broken"] == "first-byte"
        with client.connect("web-01", 81) as stream:
            assert stream.recv(1) == b""
        while True:
            event = client.next_event(60)
            assert event is not None, "nothing tells why"
            if event["event"] == "error":
                assert event["code"] == bastide.Code.VM and "port 81" in event["hint"]
                break
    fails(lambda: client.connect(VM, 7), bastide.Code.CLOSED, "the client is closed")
    fails(lambda: bastide.Client(nmae="x"), bastide.Code.USAGE, "there is no option 'nmae'")
    fails(lambda: bastide.connect(VM, 7, retries=-1, **PLACE), bastide.Code.USAGE, "'-1' is no value")
    try:
        bastide.Client(name="bastion\0evil")
        raise AssertionError("a value has an end")
    except ValueError:
        pass
    try:
        bastide.Client(credential=7)
        raise AssertionError("7 is no credential")
    except TypeError:
        pass


def own_sign_ins() -> None:
    token = os.environ["TOKEN"]
    asked = []

    def get(request: bastide.TokenRequest):
        asked.append(request)
        return token, time.time() + 3600

    with bastide.Client(credential=get, **PLACE) as client:
        assert echo(client.connect(VM, 7)) == b"hello"
        assert echo(client.connect(VM, 7)) == b"hello"
    assert len(asked) >= 1 and asked[0].scope.endswith("/.default") and not asked[0].is_fresh

    class OfAzureIdentity:
        def get_token(self, *scopes, tenant_id=None, claims=None):
            assert len(scopes) == 1
            return bastide.AccessToken(token, int(time.time()) + 3600)

    with bastide.Client(credential=OfAzureIdentity(), **PLACE) as client:
        assert echo(client.connect(VM, 7)) == b"hello"

    def refuse(request):
        raise RuntimeError("the vault is sealed")

    with bastide.Client(credential=refuse, **PLACE) as client:
        try:
            client.connect(VM, 7)
            raise AssertionError("nobody has signed in")
        except bastide.Error as error:
            assert error.code == bastide.Code.SIGN_IN and "RuntimeError: the vault is sealed" in error.message
    with bastide.Client(credential="client-secret", **PLACE) as client:
        assert echo(client.connect(VM, 7)) == b"hello"
    # Without an environment there is nothing to sign in with, and no emulator.
    try:
        bastide.Client(environment={"AZURE_CLIENT_ID": "x"}, credential="client-secret")
        raise AssertionError("it is not set up")
    except bastide.Error as error:
        assert error.code == bastide.Code.SIGN_IN and "AZURE_TENANT_ID" in error.message


def events_and_logs() -> None:
    lines = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("bastide.test")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Handler())
    told = []
    client = bastide.Client(logger=logger, **PLACE)
    pulling = threading.Thread(target=lambda: told.extend(client.events()))
    pulling.start()
    with client:
        assert echo(client.connect(VM, 7)) == b"hello"
        with client.tunnel(VM, 7) as tunnel:
            assert tunnel.port
    pulling.join()
    names = [event["event"] for event in told]
    assert {"opened", "closed", "released", "ready", "stopped"} <= set(names), names
    closed = next(event for event in told if event["event"] == "closed")
    assert (closed["sent"], closed["received"]) == (5, 5)
    assert any("bastide" in line for line in lines), lines


def forks() -> None:
    with bastide.Client(**PLACE) as client:
        stream = client.connect(VM, 7)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                client.connect(VM, 7)
            except bastide.Error as error:
                if error.code == bastide.Code.FORKED and echo(bastide.connect(VM, 7, **PLACE)) == b"hello":
                    status = 0
            # A copy of its parent's, with which nothing ends.
            stream.close()
            # With its handlers: they close what the child has made, and nothing else.
            sys.exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert echo(stream) == b"hello"


def interrupts() -> None:
    """Ctrl-C is heard while the library waits."""
    program = (
        "import bastide, os, sys\n"
        "client = bastide.Client(name='bastion', resource_group='demo')\n"
        "try:\n    print('waiting', flush=True)\n    client.next_event()\n"
        "except KeyboardInterrupt:\n    print('heard', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stdout.readline() == "waiting\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "heard\n"
    assert running.returncode == 0


def an_end_waits_for_functions() -> None:
    """One that came back when the interpreter is gone would take the process with it."""
    program = (
        "import atexit, bastide, os, sys, threading\n"
        "def ask(request):\n    print('asked', flush=True)\n    os.read(0, 1)\n    raise RuntimeError('no')\n"
        "client = bastide.Client(name='bastion', resource_group='demo', credential=ask)\n"
        "threading.Thread(target=lambda: client.connect('web-01', 7), daemon=True).start()\n"
        "atexit.register(lambda: print('ending', flush=True))\n"
        "os.read(int(sys.argv[1]), 1)\n"
    )
    reader, writer = os.pipe()
    begins = [sys.executable, "-c", program, str(reader)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(begins, pass_fds=[reader], text=True, **pipes) as running:
        assert running.stdin and running.stdout and running.stdout.readline() == "asked\n"
        os.write(writer, b"x")
        assert running.stdout.readline() == "ending\n"
        running.stdin.close()
        assert running.stdout.read() == ""
    assert running.returncode == 0, running.returncode


for test in [
    sockets_and_tunnels,
    functions_share_a_client,
    what_a_client_has_opened_keeps_it,
    one_client_for_all_who_say_the_same,
    an_end_waits_for_functions,
    streams_of_asyncio,
    errors,
    own_sign_ins,
    events_and_logs,
    forks,
    interrupts,
]:
    test()
    print(test.__name__, flush=True)
