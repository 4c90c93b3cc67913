#!/usr/bin/env python3
"""One origin of the fault drill: a process that can be killed, paused, and told to misbehave.

    origin.py NUMBER PORT FILE

Answers every GET after a hundredth of a second with its number in X-Origin, and writes down in
FILE, a line each, when its client sent it (X-Sent): requests in a paused process's queue are written
once it runs again. Orders come on its standard input, and it ends when that does.
SIGTERM ends it as a server should: no new clients, requests in flight are answered, then it exits.
"""

import asyncio
import os
import random
import signal
import socket
import sys

USUAL = 0.010  # seconds to an answer, so that something is under way at any moment
FIELD = b"\r\nx-sent: "


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered after the origin's delay."""

    def __init__(self, origin):
        self.origin, self.got, self.busy, self.transport = origin, b"", False, None

    def connection_made(self, transport):
        self.transport = transport
        self.origin.connections.add(self)

    def connection_lost(self, _problem):
        self.origin.connections.discard(self)
        self.origin.leave_if_done()

    def data_received(self, data):
        self.got += data
        if not self.busy:
            self.next()

    def next(self):
        head, mark, rest = self.got.partition(b"\r\n\r\n")
        if not mark:
            return
        self.got, self.busy = rest, True
        status, delay = self.origin.receive(head.lower())
        asyncio.get_running_loop().call_later(delay, self.answer, status)

    def answer(self, status):
        if self.transport.is_closing():
            return
        origin, last = self.origin, self.origin.finishing
        close = "Connection: close\r\n" if last else ""
        self.transport.write(
            f"HTTP/1.1 {status} Drill\r\nX-Origin: {origin.number}\r\n{close}"
            "Content-Length: 6\r\n\r\ndrill\n".encode())
        self.busy = False
        if last:
            self.transport.close()
        else:
            self.next()


class Origin:
    """What the process does at the moment, and everyone it does it to."""

    def __init__(self, number, port, path):
        self.number, self.port = number, port
        self.seen = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.status = self.health = 200
        self.delay, self.finishing = USUAL, False
        self.spread = 0.0  # so many seconds more on average, exponentially distributed
        self.share, self.long = 0.0, 0.0  # of so many requests so many seconds more
        self.connections, self.listener = set(), None
        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()

    def receive(self, head):
        """What a request gets: its status, and after how many seconds."""
        if head.startswith(b"get /health "):
            return self.health, self.delay if self.delay > USUAL else 0
        _, _, rest = head.partition(FIELD)
        os.write(self.seen, rest.partition(b"\r\n")[0] + b"\n")
        more = random.expovariate(1 / self.spread) if self.spread else 0
        if random.random() < self.share:
            more += self.long
        return self.status, self.delay + more

    def open(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.loop.add_reader(self.listener, self.accept)

    def accept(self):
        """All waiting clients; before the port is closed too, or they would be reset."""
        while True:
            try:
                stream, _ = self.listener.accept()
            except BlockingIOError:
                return
            stream.setblocking(False)
            self.loop.create_task(
                self.loop.connect_accepted_socket(lambda: Connection(self), stream))

    def close(self):
        """Closes the port; the connections that there are go on."""
        if self.listener:
            self.accept()
            self.loop.remove_reader(self.listener)
            self.listener.close()
            self.listener = None

    def drop(self):
        """Closes the port and resets every connection."""
        self.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def finish(self):
        self.close()
        self.finishing = True
        for connection in list(self.connections):
            if not connection.busy:
                connection.transport.close()
        # Those accepted a moment ago have no protocol yet: they are looked at in the next turn.
        self.loop.call_later(0.05, self.leave_if_done)

    def leave_if_done(self):
        if self.finishing and not self.connections and not self.ended.done():
            self.ended.set_result(None)

    def obey(self):
        orders = os.read(0, 4096)
        if not orders and not self.ended.done():
            self.ended.set_result(None)
        for words in map(str.split, orders.decode().splitlines()):
            if words[0] in ("open", "close", "drop"):
                getattr(self, words[0])()
            elif words[0] == "delay":
                self.delay = float(words[1]) or USUAL
            elif words[0] == "spread":
                self.spread = float(words[1])
            elif words[0] == "sometimes":
                self.share, self.long = float(words[1]), float(words[2])
            elif words[0] in ("status", "health"):
                setattr(self, words[0], int(words[1]))


async def main():
    origin = Origin(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    origin.open()
    origin.loop.add_signal_handler(signal.SIGTERM, origin.finish)
    origin.loop.add_reader(0, origin.obey)
    await origin.ended


if __name__ == "__main__":
    asyncio.run(main())
