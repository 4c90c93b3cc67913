"""The origins of the fault drill, three of them or four: how they are started, told, broken and mended.

Each is a process of its own (`origin.py`) on the load core, and keeps its port over all its lives.
"""

import os
import signal
import subprocess
import sys
import time

import network
from children import Child
from programs import answers, free_port

COUNT = 3
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "origin.py")


class Origin:
    """One origin, over all its lives."""

    def __init__(self, number, directory, core):
        self.number, self.directory, self.core = number, directory, core
        self.seen_path = os.path.join(directory, f"origin-{number}.seen")
        self.port = free_port()
        self.child = None

    def start(self):
        """Starts it, once its former life is over, and waits until its port answers."""
        self._await(lambda: self.child is None or self.child.ended(), "does not end")
        command = [sys.executable, "-ESs", PROGRAM, str(self.number), str(self.port),
                   self.seen_path]
        name = f"origin-{self.number}"
        self.child = Child(name, command, self.core, self.directory, stdin=subprocess.PIPE)
        self._await(lambda: answers(network.loader, self.port), "does not start")

    def order(self, words):
        self.child.process.stdin.write(f"{words}\n".encode())
        self.child.process.stdin.flush()

    def open(self):
        """Has it open its port again, and waits for it."""
        self.order("open")
        self._await(lambda: answers(network.loader, self.port), "does not open its port")

    def kill(self):
        self.child.signal(signal.SIGKILL)

    def pause(self):
        self.child.signal(signal.SIGSTOP)

    def resume(self):
        self.child.signal(signal.SIGCONT)

    def cut(self):
        """From now on what is sent to it vanishes, and what it sends."""
        self._filter("-A")

    def join(self):
        self._filter("-D")

    def _filter(self, how):
        for end in ("--dport", "--sport"):
            command = ["iptables", "-w", how, "INPUT", "-p", "tcp", end, str(self.port), "-j", "DROP"]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=10)

    def finish(self):
        """Has it end as a server should: see `origin.py`."""
        self.child.signal(signal.SIGTERM)

    def seen(self):
        """When the requests that reached it were sent by their clients, oldest first."""
        if not os.path.exists(self.seen_path):
            return []
        with open(self.seen_path, encoding="ascii") as file:
            return sorted(float(line) for line in file if line.strip())

    def stop(self):
        if self.child:
            self.child.stop()
            self.child = None

    def _await(self, condition, says):
        until = time.monotonic() + 5
        while not condition():
            if time.monotonic() > until:
                words = self.child.last_words() if self.child else ""
                raise RuntimeError(f"origin {self.number} {says}:\n{words}")
            time.sleep(0.005)


class Origins(list):
    """All of them, fresh: new ports, nothing seen yet."""

    host = network.loader

    def __init__(self, directory, core, count=COUNT):
        super().__init__(Origin(number, directory, core) for number in range(count))
        for origin in self:
            if os.path.exists(origin.seen_path):
                os.remove(origin.seen_path)

    @property
    def ports(self):
        return [origin.port for origin in self]

    def start(self, order=""):
        for origin in self:
            origin.start()
            if order:
                origin.order(order)

    def stop(self):
        for origin in self:
            origin.stop()
