"""A loader with a constant rate: PORT PATH BODY-BYTES RATE SECONDS CONNECTIONS SEED.

Arrivals are drawn once from a seeded Poisson process and never wait for answers: each takes a free
connection, and one that finds none free waits for one while its clock runs. h2load cannot do this:
its --rps sends from timers of 10 ms, so at 16,000/s half of all milliseconds saw no request and
every tenth 60. The latency of a request runs from its sending to its answer; how late this program
itself sent is printed beside it. It spins, at the scheduling class SCHED_IDLE: the origin, on the
same core, always goes first (as equals they made each other wait for milliseconds).
"""

import collections
import gc
import json
import os
import random
import select
import socket
import sys
import time

GRACE = 5.0  # seconds that the last answers may take


class Load:
    def __init__(self, port, path, size):
        self.port, self.size = port, size
        self.ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.errors = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}
        self.poll, self.streams = select.epoll(), {}
        self.latencies, self.late, self.bytes = [], [], 0

    def connect(self, count):
        """Opens all connections, makes one request on each, and learns how long an answer is."""
        for _ in range(count):
            stream = socket.create_connection(("127.0.0.1", self.port), 5)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.sendall(self.ask)
            answer = b""
            while len(answer.partition(b"\r\n\r\n")[2]) < self.size:
                answer += stream.recv(65536) or sys.exit(f"closed before its answer: {answer!r}")
            self.length = len(answer)
            stream.setblocking(False)
            self.streams[stream.fileno()] = stream
            self.poll.register(stream.fileno(), select.EPOLLIN)

    def run(self, due):
        """Sends request k at `due[k]` ns from now; returns when all are answered or time is up."""
        clock, streams, ask = time.monotonic_ns, self.streams, self.ask
        free, sent = collections.deque(streams), {}
        following, total, starved = 0, len(due), False
        start = clock()
        until = start + due[-1] + int(GRACE * 1e9)
        while len(self.latencies) < total and (now := clock()) < until:
            while following < total and due[following] <= now - start:
                if not free:
                    starved = True
                    break
                number, sending = free.popleft(), clock()
                # A request that was kept waiting by slow answers pays for its wait.
                sent[number] = start + due[following] if starved else sending
                self.late.append(sending - start - due[following])
                streams[number].send(ask)
                following += 1
            else:
                starved = False
            for number, _ in self.poll.poll(0):
                if self.answered(streams[number]):
                    self.latencies.append(clock() - sent.pop(number))
                    free.append(number)
                elif any(self.errors.values()):
                    return
        self.errors["timeout"] += total - len(self.latencies)

    def answered(self, stream):
        """Reads; true when the whole answer is there. All answers are of one length."""
        answer = stream.recv(65536)
        self.bytes += len(answer)
        if len(answer) == self.length and answer.startswith(b"HTTP/1.1 200"):
            return True
        if not answer:
            self.errors["read"] += 1
            return False
        return self.in_pieces(stream, answer)

    def in_pieces(self, stream, answer):
        """The rare answer that came in several segments: waits for the rest of it."""
        stream.settimeout(GRACE)
        while len(answer.partition(b"\r\n\r\n")[2]) < self.size and (more := stream.recv(65536)):
            answer += more
            self.bytes += len(more)
        stream.setblocking(False)
        if not answer.startswith(b"HTTP/1.1 200"):
            self.errors["status"] += 1
        return answer.startswith(b"HTTP/1.1 200")


def schedule(rate, seconds, seed):
    """Due times in nanoseconds from the start."""
    rng, due, at = random.Random(seed), [], 0.0
    while at < seconds:
        due.append(int(at * 1e9))
        at += rng.expovariate(rate)
    return due


def percentile(values, share):
    """In microseconds; the values are nanoseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000 if ordered else 0.0


def main():
    port, path, size, rate, seconds, connections, seed = sys.argv[1:]
    load, due = Load(int(port), path, int(size)), schedule(float(rate), float(seconds), int(seed))
    load.connect(int(connections))
    gc.disable()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    began = time.monotonic_ns()
    load.run(due)
    took = time.monotonic_ns() - began
    seen = {
        "requests": len(load.latencies), "bytes": load.bytes, "duration_us": took / 1000,
        "p50": percentile(load.latencies, 0.5), "p99": percentile(load.latencies, 0.99),
        "p999": percentile(load.latencies, 0.999), "max": percentile(load.latencies, 1.0),
        "late_p99": percentile(load.late, 0.99), "errors": load.errors,
    }
    print("RESULT " + json.dumps(seen))


if __name__ == "__main__":
    main()
