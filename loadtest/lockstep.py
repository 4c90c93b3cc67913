"""A core of Ringway that takes its turns only when it is told to, and the clients and backends that
it works for between them.

`gate.c` is preloaded into it. Between two turns the core waits, and everything that it will find in
the next is sent: the requests of all clients, then the answers to all of them. So each turn has the
same to do in every run, however fast the machine is and whatever else runs on it.
"""

import os
import selectors
import socket
import time

import programs

PATIENCE = 60  # seconds that anything may take
TURNS = 2  # at the gate, of a batch of which nothing came late
_HERE = os.path.dirname(os.path.abspath(__file__))


def build(directory):
    """Compiles the gate; its path."""
    path = os.path.join(directory, "gate.so")
    programs.compiled(os.path.join(_HERE, "gate.c"), path, "-fPIC", "-shared")
    return path


class Gate:
    """The words between the core and us; the core is asked for one turn at a time."""

    def __init__(self, directory, library):
        self.path, self.library = os.path.join(directory, "gate"), library
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.listener.settimeout(PATIENCE)
        self.stream = None

    def close(self):
        """From here on the core waits for turns."""
        self.stream, _ = self.listener.accept()
        self.stream.settimeout(PATIENCE)
        self._say(b"l")

    def turn(self):
        """Lets the core work until nothing more completes."""
        self._say(b"g")

    def let_time_pass(self):
        """Moves the core's clock on by 20 ms, and lets it work until nothing more completes."""
        self._say(b"t")

    def mark(self):
        self._say(b"m")

    def _say(self, word):
        self.stream.sendall(word)
        if self.stream.recv(1) != b"i":
            raise RuntimeError("the core has ended")


class Peers:
    """Sockets that are read whenever something has come: whole messages are counted."""

    def __init__(self, is_whole):
        self.is_whole, self.selector, self.got = is_whole, selectors.DefaultSelector(), {}

    def add(self, stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(PATIENCE)
        self.got[stream] = b""
        self.selector.register(stream, selectors.EVENT_READ)

    def take(self, wait):
        """Reads what is there, waiting at most so long; those that have a whole message."""
        for key, _ in self.selector.select(wait):
            if key.fileobj not in self.got:
                self.add(key.fileobj.accept()[0])
                continue
            came = key.fileobj.recv(1 << 16)
            if not came:
                raise RuntimeError("Ringway closed a connection")
            self.got[key.fileobj] += came
        return [stream for stream, got in self.got.items() if self.is_whole(got)]

    def forget(self):
        """What was read, by connection; everything is empty again."""
        messages = list(self.got.values())
        self.got = dict.fromkeys(self.got, b"")
        return messages


class Backends(Peers):
    """Listeners, their connections, and one answer to every request."""

    host = "127.0.0.1"

    def __init__(self, count, answer):
        super().__init__(lambda got: got.endswith(b"\r\n\r\n"))
        self.answer, self.ports = answer, []
        for _ in range(count):
            port = programs.free_port()
            listener = socket.create_server((self.host, port), backlog=1024)
            self.selector.register(listener, selectors.EVENT_READ)
            self.ports.append(port)


class Lockstep:
    """Clients and backends around a core; a batch is one request of each client."""

    def __init__(self, gate, port, backends, clients):
        self.gate, self.backends = gate, backends
        end = b"\r\n\r\n" + backends.answer.partition(b"\r\n\r\n")[2]
        self.clients = Peers(lambda got: got.endswith(end))
        for _ in range(clients):
            self.clients.add(socket.create_connection(("127.0.0.1", port), PATIENCE))
        gate.close()
        self.gate.turn()

    def batch(self, head):
        """One request of each client, answered; how many turns were needed, `TURNS` at best."""
        for client in self.clients.got:
            client.sendall(head)
        turns = self._until(self.backends)
        asked = self.backends.take(0)
        self.backends.forget()
        for stream in asked:
            stream.sendall(self.backends.answer)
        turns += self._until(self.clients)
        for answer in self.clients.forget():
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not 200: {answer[:60]!r}")
        return turns

    def _until(self, peers):
        """Turns until every client's message is there."""
        turns, until = 0, time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.gate.turn()
            turns += 1
            for wait in (0, 0, 0.1):
                if len(peers.take(wait)) == len(self.clients.got):
                    return turns
            # A new connection to a backend rests for a moment.
            self.gate.let_time_pass()
        raise RuntimeError("the core does nothing more, and not all is answered")
