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
import speech

PATIENCE = 60  # seconds that anything may take
STREAMS = 16  # requests at once of a client of HTTP/2
END = b"\r\n\r\n"
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
    """Connections that are read whenever something has come; their whole messages are counted."""

    def __init__(self):
        self.selector, self.ends = selectors.DefaultSelector(), {}

    def add(self, stream, end):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(PATIENCE)
        self.ends[stream] = end
        self.selector.register(stream, selectors.EVENT_READ)
        stream.sendall(end.greeting)

    def take(self, wait):
        """Reads what is there, waiting at most so long; how many messages there are now."""
        for key, _ in self.selector.select(wait):
            stream = key.fileobj
            if stream not in self.ends:
                self.add(stream.accept()[0], self.end())
                continue
            came = stream.recv(1 << 16)
            if not came:
                raise RuntimeError("Ringway closed a connection")
            if said := self.ends[stream].came(came):
                stream.sendall(said)
        return sum(end.messages for end in self.ends.values())

    def forget(self):
        """Those that have messages; none has any more."""
        found = [(stream, end) for stream, end in self.ends.items() if end.messages]
        for _, end in found:
            end.messages = 0
        return found


class Backends(Peers):
    """Listeners, their connections, and one answer to every request; `kind` is one of those of
    `counts.py`."""

    host = "127.0.0.1"

    def __init__(self, count, answer, kind, folder):
        super().__init__()
        self.answer, self.ports = answer, []
        self.end = lambda: speech.Http1(END)
        if kind == "TLS behind":
            programs.make_certificate(folder)
            context = speech.server_context(folder)
            self.end = lambda: speech.Tls(speech.Http1(END), context)
            self.tls_ports = self.ports
        elif kind == "h2 behind":
            self.end = speech.Http2
            self.h2_ports = self.ports
        for _ in range(count):
            port = programs.free_port()
            listener = socket.create_server((self.host, port), backlog=1024)
            self.selector.register(listener, selectors.EVENT_READ)
            self.ports.append(port)


class Lockstep:
    """Clients and backends around a core; a batch is so many requests at once."""

    def __init__(self, proxy, backends, kind, requests):
        self.gate, self.backends, self.requests = proxy.gate, backends, requests
        self.clients = Peers()
        streams = STREAMS if kind == "h2" else 1
        end = END + backends.answer.partition(END)[2]
        port = {"TLS behind": proxy.back_port, "h2 behind": proxy.h2_port}.get(kind, proxy.port)
        for _ in range(requests // streams):
            stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
            says = speech.Http2(STREAMS) if kind == "h2" else speech.Http1(end, b"HTTP/1.1 200 ")
            self.clients.add(stream, says)
        self.gate.close()
        self.gate.turn()

    def batch(self, head):
        """All requests of the clients, answered; how many turns were needed, `TURNS` at best."""
        for client, end in self.clients.ends.items():
            client.sendall(end.ask(head))
        turns = self._until(self.backends)
        for stream, end in self.backends.forget():
            stream.sendall(end.answer(self.backends.answer))
        turns += self._until(self.clients)
        self.clients.forget()
        return turns

    def _until(self, peers):
        """Turns until all messages are there."""
        turns, until = 0, time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.gate.turn()
            turns += 1
            for wait in (0, 0, 0.1):
                if peers.take(wait) == self.requests:
                    return turns
            # A new connection to a backend rests for a moment.
            self.gate.let_time_pass()
        raise RuntimeError("the core does nothing more, and not all is answered")
