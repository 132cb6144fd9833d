"""Real SSH sessions over a socket of the library's: paramiko, and asyncssh."""

import asyncio
import os

import asyncssh
import paramiko

import bastide

PLACE = {"name": "bastion", "resource_group": "demo"}
VM, KEY = os.environ["VM"], os.environ["KEY"]


def with_paramiko() -> None:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    with bastide.connect(VM, 22, **PLACE) as stream:
        client.connect("web-01", username="azureuser", key_filename=KEY, sock=stream, allow_agent=False, look_for_keys=False)
        _, output, _ = client.exec_command("echo from paramiko")
        assert output.read() == b"from paramiko\n"
        with client.open_sftp() as files:
            with files.open("by-paramiko", "wb") as file:
                file.write(b"x" * 1_000_000)
            assert files.stat("by-paramiko").st_size == 1_000_000
        client.close()


async def with_asyncssh() -> None:
    stream = await bastide.connect_async(VM, 22, **PLACE)
    async with asyncssh.connect(
        "web-01", sock=stream, username="azureuser", client_keys=[KEY], known_hosts=None, agent_path=None, config=None
    ) as session:
        outcomes = await asyncio.gather(*(session.run(f"echo {number}") for number in range(5)))
        assert [outcome.stdout for outcome in outcomes] == [f"{number}\n" for number in range(5)]


with_paramiko()
asyncio.run(with_asyncssh())
print("both have signed in")
