"""What an idle connection costs in memory.

Each proxy is started anew and alone. Thousands of keep-alive connections are opened by this
program itself. `idle`: each makes one request, one after the other; 3 s later the growth of the
resident memory is divided by their number. `burst`: all are open first, then all make their request
at the same moment (the proxy is paused while the requests are written, so that it finds them all),
and 3 s after the last answer the same is read. No connection may have been closed meanwhile.
"""

import resource
import signal
import socket
import ssl
import time

from cases import BODIES

REST = 3.0  # seconds of idleness before memory is read
PLAIN, TLS, H2 = "plain", "TLS", "HTTP/2 over TLS"  # what the connections speak

# What a client of HTTP/2 begins with (RFC 9113 §3.4): the preface, and settings of which none
# differs.
BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTLED = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])


class Crowd:
    """Many keep-alive connections to one address, driven by hand."""

    def __init__(self, host, port, speaks=PLAIN):
        self.host, self.port, self.speaks, self.streams, self.tls = host, port, speaks, [], None
        if speaks != PLAIN:
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        if speaks == H2:
            self.tls.set_alpn_protocols(["h2"])
            self.next = {}  # the number of each connection's next stream
        named = f"Host: {host}:{port}\r\n"
        self.ask = f"GET /128b HTTP/1.1\r\n{named}User-Agent: crowd\r\n\r\n".encode()

    def open(self):
        stream = socket.create_connection((self.host, self.port), 10)
        stream.settimeout(10)
        if self.tls:
            stream = self.tls.wrap_socket(stream, server_hostname="load.test")
        if self.speaks == H2:
            stream.sendall(BEGIN)
            self.next[stream] = 1
        self.streams.append(stream)
        return stream

    def request(self, stream):
        if self.speaks != H2:
            return stream.sendall(self.ask)
        number = self.next[stream]
        self.next[stream] += 2
        # GET and https of the static table; path and authority as literals (RFC 7541 §6.2.2).
        host = f"{self.host}:{self.port}".encode()
        block = bytes([0x82, 0x87, 0x04, 5]) + b"/128b" + bytes([0x01, len(host)]) + host
        head = len(block).to_bytes(3, "big") + bytes([1, 5]) + number.to_bytes(4, "big")
        return stream.sendall(head + block)

    def answer(self, stream):
        return self.frames(stream) if self.speaks == H2 else self.text(stream)

    def frames(self, stream):
        """Reads frames to the end of the stream that was asked on last, and agrees to settings."""
        got, size = b"", 0
        while True:
            while len(got) < 9 or len(got) < 9 + int.from_bytes(got[:3], "big"):
                chunk = stream.recv(4096)
                if not chunk:
                    raise RuntimeError(f"the proxy closed a connection before its answer: {got!r}")
                got += chunk
            length, kind, flags = int.from_bytes(got[:3], "big"), got[3], got[4]
            got = got[9 + length:]
            size += length if kind == 0 else 0
            if kind == 4 and not flags & 1:
                stream.sendall(SETTLED)
            elif kind in (3, 7):
                raise RuntimeError(f"the proxy ended a stream or the connection: kind {kind}")
            elif kind in (0, 1) and flags & 1:
                if size != BODIES["128b"]:
                    raise RuntimeError(f"{size} bytes came")
                return

    def text(self, stream):
        got = b""
        while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < BODIES["128b"]:
            chunk = stream.recv(4096)
            if not chunk:
                raise RuntimeError(f"the proxy closed a connection before its answer: {got!r}")
            got += chunk
        if not got.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not 200: {got[:60]!r}")

    def gone(self):
        """How many connections the other side has closed."""
        count = 0
        for stream in self.streams:
            stream.setblocking(False)
            try:
                # Below TLS, where a ticket may lie.
                count += socket.socket.recv(stream, 1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                pass
            except ConnectionError:
                count += 1
        return count

    def close(self):
        for stream in self.streams:
            stream.close()
        self.streams = []


def affordable(wanted):
    """How many connections the descriptor limit allows (a proxy needs two for each)."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(wanted, (soft - 300) // 2 * 9 // 10)


def measure(proxy, origin, wanted, speaks=PLAIN):
    """{'idle': bytes, 'burst': bytes, …} per connection of one proxy; over TLS only the first."""
    count = affordable(wanted)
    result = {"connections": count}
    for shape in ("idle", "burst") if speaks == PLAIN else ("idle",):
        proxy.start(origin)
        warm(proxy, speaks)
        base = proxy.child.rss_bytes()
        crowd = crowd_of(proxy, speaks)
        try:
            (one_after_the_other if shape == "idle" else all_at_once)(crowd, proxy, count)
            time.sleep(REST)
            grown = proxy.child.rss_bytes() - base
            if gone := crowd.gone():
                raise RuntimeError(f"{proxy.name} closed {gone} of {count} idle connections")
        finally:
            crowd.close()
            proxy.stop()
        result[shape] = grown / count
        result[f"{shape}_base"] = base
    return result


def crowd_of(proxy, speaks):
    return Crowd(proxy.host, proxy.port if speaks == PLAIN else proxy.tls_port, speaks)


def warm(proxy, speaks=PLAIN):
    """A few requests on one connection, so that what is made once is there; then it closes."""
    crowd = crowd_of(proxy, speaks)
    stream = crowd.open()
    for _ in range(10):
        crowd.request(stream)
        crowd.answer(stream)
    crowd.close()
    time.sleep(0.5)


def one_after_the_other(crowd, _proxy, count):
    for _ in range(count):
        stream = crowd.open()
        crowd.request(stream)
        crowd.answer(stream)


def all_at_once(crowd, proxy, count):
    for _ in range(count):
        crowd.open()
    time.sleep(0.5)
    proxy.child.signal(signal.SIGSTOP)
    try:
        for stream in crowd.streams:
            crowd.request(stream)
    finally:
        proxy.child.signal(signal.SIGCONT)
    for stream in crowd.streams:
        crowd.answer(stream)
