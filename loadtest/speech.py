"""What clients and backends in lockstep say, by protocol: HTTP/1, HTTP/1 over TLS, HTTP/2.

Each class is one end of one connection: bytes that came go in (`came`), whole messages are counted
(`messages`), and what is to be said comes out. Of HTTP/2 only as much as a count needs: heads are
written with a table and Huffman codes, as nghttp2 does, and none are read; no window is ever full.
"""

import ssl
import struct

OK = 0x88  # status 200: an entry of the fixed table of HPACK


class Http1:
    """Messages that end with the same bytes, one at a time."""

    greeting = b""

    def __init__(self, end, begins=b""):
        self.end, self.begins, self.got, self.messages = end, begins, b"", 0

    def came(self, data):
        """Takes what came; what must be said to that at once."""
        self.got += data
        if self.got.endswith(self.end):
            if not self.got.startswith(self.begins):
                raise RuntimeError(f"not 200: {self.got[:60]!r}")
            self.got, self.messages = b"", self.messages + 1
        return b""

    def ask(self, head):
        """The bytes of all requests that are asked at once."""
        return head

    def answer(self, answer):
        """The bytes of all answers that are owed."""
        return answer


class Tls:
    """A backend's end of TLS around another end."""

    greeting = b""

    def __init__(self, inner, context):
        self.inner, self.read, self.write = inner, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.read, self.write, server_side=True)
        self.is_open = False

    @property
    def messages(self):
        return self.inner.messages

    @messages.setter
    def messages(self, count):
        self.inner.messages = count

    def came(self, data):
        self.read.write(data)
        try:
            if not self.is_open:
                self.tls.do_handshake()
                self.is_open = True
            while plain := self.tls.read(1 << 16):
                self.inner.came(plain)
        except ssl.SSLWantReadError:
            pass
        return self.write.read()

    def answer(self, answer):
        self.tls.write(self.inner.answer(answer))
        return self.write.read()


def server_context(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/tls.pem", f"{folder}/tls.key")
    return context


# HTTP/2 (RFC 9113).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW = (1 << 31) - 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Http2:
    """Either end: a client with so many streams at once, or a backend (none)."""

    def __init__(self, streams=0):
        self.streams, self.got, self.messages = streams, b"", 0
        self.fields, self.last, self.owed = Fields(), -1, []
        # INITIAL_WINDOW_SIZE; a backend says how many streams it takes, as nginx does.
        settings = frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, WINDOW, 3, 128))
        room = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65_535))
        self.greeting = (PREFACE if streams else b"") + settings + room
        self.awaits = b"" if streams else PREFACE

    def came(self, data):
        self.got += data
        if self.awaits and self.got.startswith(self.awaits):
            self.got, self.awaits = self.got[len(self.awaits):], b""
        said = b""
        while not self.awaits and len(self.got) >= 9:
            length = int.from_bytes(self.got[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", self.got[3:9])
            payload, rest = self.got[9:9 + length], self.got[9 + length:]
            if len(payload) < length:
                break
            self.got = rest
            said += self._frame(kind, flags, stream, payload)
        return said

    def _frame(self, kind, flags, stream, payload):
        if kind in (RST_STREAM, GOAWAY):
            raise RuntimeError(f"a stream or a connection was ended: {payload!r}")
        if kind == SETTINGS and not flags & ACK:
            return frame(SETTINGS, ACK, 0)
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload)
        if kind == HEADERS and self.streams and OK not in payload[:2]:
            raise RuntimeError(f"not 200: {payload[:60]!r}")
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.messages += 1
            self.owed.append(stream)
        return b""

    def ask(self, head):
        line, *lines = head.decode().split("\r\n")
        method, path, _ = line.split(" ")
        others = [(name.lower(), value) for name, _, value in
                  (line.partition(": ") for line in lines if line) if name != "Connection"]
        host = dict(others)["host"]
        fields = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path),
                  *(field for field in others if field[0] != "host")]
        said = []
        for _ in range(self.streams):
            self.last += 2
            said.append(frame(HEADERS, END_HEADERS | END_STREAM, self.last,
                              self.fields.block(fields)))
        return b"".join(said)

    def answer(self, answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
        fields = [(":status", "200"), *((name.lower(), value) for name, _, value in lines
                                        if name != "Connection")]
        said = b"".join(
            # nginx keeps no table.
            frame(HEADERS, END_HEADERS, stream, Fields().block(fields, keeps=False))
            + frame(DATA, END_STREAM, stream, body) for stream in self.owed)
        self.owed = []
        return said


NAMES = {
    ":authority": 1, ":path": 4, "accept": 19, "accept-encoding": 16, "accept-language": 17,
    "content-length": 28, "content-type": 31, "cookie": 32, "date": 33, "last-modified": 44,
    "referer": 51, "server": 54, "user-agent": 58,
}
WHOLE = {(":method", "GET"): 2, (":scheme", "http"): 6, (":status", "200"): 8}
FIXED = 61

# The lengths of the codes of the bytes and of the end (RFC 7541 appendix B): the codes follow from
# them.
LENGTHS = """
 13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28 6 10
 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10 13 6 7 7 7 7 7 7 7 7 7 7 7 7 7
 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11
 14 13 28 20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23
 23 24 22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22
 23 26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
 20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26 30
"""


def _codes():
    codes, code, before = {}, 0, 0
    for length, symbol in sorted((int(it), at) for at, it in enumerate(LENGTHS.split())):
        code <<= length - before
        codes[symbol], code, before = f"{code:0{length}b}", code + 1, length
    return codes


CODES = _codes()


def number(first, bits, value):
    """RFC 7541 §5.1."""
    full = (1 << bits) - 1
    if value < full:
        return bytes([first | value])
    out, value = bytearray([first | full]), value - full
    while value >= 128:
        out.append(128 | value & 127)
        value >>= 7
    return bytes(out) + bytes([value])


def text(value):
    plain = value.encode()
    bits = "".join(CODES[byte] for byte in plain)
    bits += "1" * (-len(bits) % 8)
    coded = bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits), 8))
    if len(coded) < len(plain):
        return number(0x80, 7, len(coded)) + coded
    return number(0, 7, len(plain)) + plain


class Fields:
    """A writer of blocks; its table never becomes full here."""

    def __init__(self):
        self.table = []

    def block(self, fields, keeps=True):
        return b"".join(self._field(field, keeps) for field in fields)

    def _field(self, field, keeps):
        name, value = field
        if entry := WHOLE.get(field):
            return bytes([0x80 | entry])
        if field in self.table:
            return number(0x80, 7, FIXED + 1 + self.table[::-1].index(field))
        # As nghttp2: a path is different each time.
        keeps = keeps and name != ":path"
        known = NAMES.get(name, 0)
        first = number(0x40, 6, known) if keeps else number(0, 4, known)
        if keeps:
            self.table.append(field)
        return first + (b"" if known else text(name)) + text(value)
