"""The load of the fault drill: GETs at a constant rate, and what became of each of them.

A thread that sends on whatever keep-alive connection is idle, or a new one, whether or not earlier
requests have been answered: a fault does not slow the load down. It notes every request, with the
origin that answered; of a request that fails it says how. wrk only counts.
"""

import select
import socket
import threading
import time
from typing import NamedTuple

PATIENCE = 5.0  # seconds until a client gives up
BEHIND = 0.1  # seconds that the sender may lag and still catch up; then it lets requests go


class Answer(NamedTuple):
    """What became of one request."""

    sent: float  # monotonic seconds
    took: float
    status: int  # 0 = none came
    origin: int  # -1 = no origin: the proxy's own answer
    problem: str  # why none came

    @property
    def failed(self):
        return not 200 <= self.status < 300

    @property
    def reason(self):
        return self.problem or str(self.status)


class Stream:
    """One connection to the proxy and the request that is under way on it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent, self.got = None, b""

    def send(self, port, now):
        self.sent, self.got = now, b""
        self.socket.send(
            f"GET /drill HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Sent: {now:.6f}\r\n\r\n".encode())

    def receive(self):
        """(status, origin, whether the connection may be used again) once the answer is whole."""
        chunk = self.socket.recv(65536)
        if not chunk:
            raise EOFError
        self.got += chunk
        head, mark, content = self.got.partition(b"\r\n\r\n")
        if not mark:
            return None
        lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(":", 1) for line in lines[1:])
        # Without a length it lasts until the end of the connection, which is not waited for.
        if len(content) < int(fields.get("content-length", 0)):
            return None
        lasts = "content-length" in fields and fields.get("connection", "").strip() != "close"
        return int(lines[0].split()[1]), int(fields.get("x-origin", -1)), lasts


class Load(threading.Thread):
    """The sender. `answers` grows while it runs, in the order in which answers come.

    `lags` are the moments at which it fell behind, because others used its core.
    """

    def __init__(self, port, rate):
        super().__init__(daemon=True)
        self.port, self.rate = port, rate
        self.answers, self.lags, self.problem = [], [], None
        self._stopping = threading.Event()
        self._poll, self._streams, self._idle = select.epoll(), {}, []
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self.join(PATIENCE + 2)

    def stop(self):
        """Sends no more, waits for what is under way, and ends."""
        self.__exit__()
        if self.problem or self.is_alive():
            raise RuntimeError(f"the load ended badly: {self.problem or 'it hangs'}")

    def run(self):
        try:
            self._run()
        except Exception as problem:  # said by stop(), in the thread that asks
            self.problem = repr(problem)
        finally:
            for stream in self._streams.values():
                stream.socket.close()
            self._poll.close()

    def _run(self):
        due, swept = time.monotonic(), 0.0
        while not self._stopping.is_set() or self._under_way():
            now = time.monotonic()
            if self._stopping.is_set():
                due = now + 0.01
            elif now - due > BEHIND:
                self.lags.append(due)
                due = now
            while due <= now:
                self._send()
                due += 1 / self.rate
            for number, _ in self._poll.poll(max(0, due - time.monotonic())):
                self._receive(self._streams[number])
            if now - swept > BEHIND:
                self._give_up(now)
                swept = now

    def _under_way(self):
        return any(stream.sent for stream in self._streams.values())

    def _send(self):
        now, stream = time.monotonic(), None
        try:
            if not self._idle:
                stream = Stream(self.port)
                self._streams[stream.socket.fileno()] = stream
                self._poll.register(stream.socket, select.EPOLLIN)
            else:
                stream = self._idle.pop()
            stream.send(self.port, now)
        except OSError as problem:
            self._note(now, problem=type(problem).__name__)
            if stream:
                stream.sent = None
                self._close(stream)

    def _receive(self, stream):
        try:
            whole = stream.receive()
        except (OSError, EOFError) as problem:
            if stream.sent:
                self._note(stream.sent, problem=type(problem).__name__)
            else:
                self._idle.remove(stream)
            self._close(stream)
            return
        if whole:
            status, origin, lasts = whole
            self._note(stream.sent, status, origin)
            stream.sent = None
            if lasts:
                self._idle.append(stream)
            else:
                self._close(stream)

    def _give_up(self, now):
        for stream in list(self._streams.values()):
            if stream.sent and now - stream.sent > PATIENCE:
                self._note(stream.sent, problem="timeout")
                self._close(stream)

    def _note(self, sent, status=0, origin=-1, problem=""):
        self.answers.append(Answer(sent, time.monotonic() - sent, status, origin, problem))

    def _close(self, stream):
        del self._streams[stream.socket.fileno()]
        self._poll.unregister(stream.socket)
        stream.socket.close()
