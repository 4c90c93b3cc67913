"""What is measured and what must come out: the cases and the figures, as two tables.

A figure is the largest allowed value of `ours / theirs` (or an absolute value in bytes), taken from
the issue that asks for speed where it is. `cpu` is the CPU time of the proxy's process per request, `busy`
the busy time of its whole pinned core per request (for 1 MiB: per GB moved, because splice(2)
leaves a tenth of its work to the core and not to the process).
"""

from dataclasses import dataclass

BODIES = {"128b": 128, "16k": 16 * 1024, "1m": 1024 * 1024}


@dataclass(frozen=True)
class Case:
    name: str
    says: str
    body: str
    connections: int
    close: bool = False
    per_gigabyte: bool = False  # cost is given per GB, not per request
    tls: str = ""  # "front": to the proxy; "back": from it to the backends
    handshakes: str = ""  # "new", or "reuse": each goes on with the session of the one before
    streams: int = 0  # requests at once on each connection: its clients speak HTTP/2
    h2_back: bool = False  # HTTP/2 without TLS to the backends
    tcp: bool = False  # through a listener of TCP: the proxy sees bytes, no requests

    @property
    def path(self):
        return f"/{self.body}"

    @property
    def unit(self):
        return "ms/GB" if self.per_gigabyte else "µs/req"


CASES = [
    Case("128b-8", "128 B, 8 connections", "128b", 8),
    Case("128b-64", "128 B, 64 connections", "128b", 64),
    Case("128b-512", "128 B, 512 connections", "128b", 512),
    Case("128b-2000", "128 B, 2,000 connections", "128b", 2000),
    Case("16k-64", "16 KiB, 64 connections", "16k", 64),
    Case("1m-16", "1 MiB, 16 connections", "1m", 16, per_gigabyte=True),
    Case("close-64", "128 B, a connection per request, 64 at a time", "128b", 64, close=True),
    Case("tls-128b-64", "128 B over TLS, 64 connections", "128b", 64, tls="front"),
    Case("tls-1m-16", "1 MiB over TLS, 16 connections", "1m", 16, per_gigabyte=True, tls="front"),
    Case("tls-new-2", "128 B, a full TLS 1.3 handshake per request, 2 at a time", "128b", 2,
         close=True, tls="front", handshakes="new"),
    Case("tls-again-2", "128 B, a resumed TLS 1.3 handshake per request, 2 at a time", "128b", 2,
         close=True, tls="front", handshakes="reuse"),
    Case("tls-back-64", "128 B, TLS to the backends, 64 connections", "128b", 64, tls="back"),
    Case("h2-16x32", "128 B, HTTP/2 over TLS, 16 connections with 32 streams each", "128b", 16,
         tls="front", streams=32),
    Case("h2-1x100", "128 B, HTTP/2 over TLS, 1 connection with 100 streams", "128b", 1,
         tls="front", streams=100),
    Case("h2-1m-4x4", "1 MiB, HTTP/2 over TLS, 4 connections with 4 streams each", "1m", 4,
         per_gigabyte=True, tls="front", streams=4),
    Case("h2-back-64", "128 B, HTTP/2 to the backends, 64 connections of HTTP/1", "128b", 64,
         h2_back=True),
    Case("tcp-128b-64", "128 B back and forth over TCP, 64 connections", "128b", 64, tcp=True),
    Case("tcp-1m-16", "1 MiB over TCP, 16 connections", "1m", 16, per_gigabyte=True, tcp=True),
    Case("tcp-new-64", "128 B over TCP, a connection each, 64 at a time", "128b", 64, close=True,
         tcp=True),
]

# The other measurements, by the names `--only` takes.
IDLE = "idle-memory"
IDLE_TLS = "idle-memory-tls"
IDLE_H2 = "idle-memory-h2"
# Constant rates, as shares of what the slower rival can do.
STEADY = {"steady-p99": 0.5, "steady-p99-0.9": 0.9}
NAMES = [case.name for case in CASES] + [IDLE, IDLE_TLS, IDLE_H2, *STEADY]


@dataclass(frozen=True)
class Figure:
    case: str
    metric: str  # cpu | busy | p99 | idle | burst | over (what an idle connection costs more than one of TLS)
    rival: str  # a rival's name or "floor", "best" (the better of the rivals), what a variant of Ringway is
    #             held against (`programs.Variant`), or "" (an absolute value)
    limit: float


FIGURES = [
    Figure("128b-64", "cpu", "haproxy", 0.80),
    Figure("128b-64", "cpu", "nginx", 0.82),
    Figure("128b-64", "cpu", "floor", 1.12),
    Figure("128b-64", "cpu", "no log", 1.10),
    Figure("128b-64", "cpu", "round robin", 1.05),
    Figure("128b-512", "cpu", "haproxy", 0.88),
    Figure("128b-512", "cpu", "nginx", 0.85),
    Figure("128b-512", "cpu", "floor", 1.15),
    Figure("16k-64", "cpu", "haproxy", 0.78),
    Figure("16k-64", "cpu", "nginx", 0.90),
    Figure("1m-16", "busy", "haproxy", 0.50),
    Figure("1m-16", "busy", "nginx", 0.44),
    Figure("close-64", "cpu", "haproxy", 0.80),
    Figure("close-64", "cpu", "nginx", 0.87),
    Figure("tls-128b-64", "cpu", "best", 0.80),
    Figure("tls-1m-16", "busy", "best", 0.85),
    Figure("tls-new-2", "cpu", "best", 0.80),
    Figure("tls-again-2", "cpu", "best", 0.85),
    Figure("tls-back-64", "cpu", "best", 0.85),
    Figure("h2-16x32", "cpu", "best", 0.85),
    Figure("h2-1x100", "cpu", "best", 0.90),
    Figure("h2-1m-4x4", "busy", "best", 0.85),
    Figure("h2-back-64", "cpu", "haproxy", 0.85),
    *(Figure(name, "p99", "best", 1.10) for name in STEADY),
    Figure("tcp-128b-64", "cpu", "haproxy", 0.75),
    Figure("tcp-128b-64", "cpu", "nginx", 0.85),
    Figure("tcp-128b-64", "busy", "loopback", 1.00),
    Figure("tcp-1m-16", "busy", "haproxy", 0.90),
    Figure("tcp-1m-16", "busy", "loopback", 1.00),
    Figure("tcp-new-64", "cpu", "haproxy", 0.85),
    Figure("tcp-new-64", "cpu", "nginx", 0.85),
    Figure("128b-64", "busy", "loopback", 1.00),
    Figure(IDLE, "idle", "", 944),
    Figure(IDLE, "burst", "", 4096),
    Figure(IDLE_TLS, "idle", "nginx", 0.50),
    Figure(IDLE_H2, "over", "", 6144),
]


def figures(case):
    return [figure for figure in FIGURES if figure.case == case]
