"""A hundred megabytes there, and back from an echo, at the same time: prints the sums of both directions and the bytes
of both. Options are words such as name=BASTION."""

import hashlib
import random
import socket
import sys
import threading

import bastide

BYTES = 100 * 1024 * 1024
PIECE = 60001

options = {}
for word in sys.argv[1:]:
    key, value = word.split("=", 1)
    options[key.replace("-", "_")] = value
target, port = options.pop("target_resource_id"), int(options.pop("resource_port"))

sent, received, came = hashlib.sha256(), hashlib.sha256(), 0
with bastide.connect(target, port=port, **options) as stream:

    def send_all() -> None:
        noise = random.Random(1)
        left = BYTES
        while left > 0:
            piece = noise.randbytes(min(left, PIECE))
            sent.update(piece)
            stream.sendall(piece)
            left -= len(piece)
        stream.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send_all)
    sender.start()
    while True:
        piece = stream.recv(PIECE)
        if not piece:
            break
        received.update(piece)
        came += len(piece)
    sender.join()

print(sent.hexdigest(), received.hexdigest(), BYTES, came)
