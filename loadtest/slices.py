"""Slices of load and the rounds they make.

The machine drifts by half within minutes, so nothing is measured once: all proxies run at the same
time, idle but one; a slice of one second of wrk goes to each in shuffled order: that is a round. A
slice in which others used the CPU is thrown away and repeated. Ratios are taken within a round,
where both sides met the same machine, and their median counts. Every few rounds all proxies are
started anew: one of them may be fast or slow by the luck of its start until it ends.
"""

import json
import os
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field

import children
import clocks
from programs import tool

SETTLE = 0.03  # seconds after the loader's end in which a proxy closes its connections
FOREIGN = 0.03  # share of a slice's time that other processes may use, both cores together
STEAL = 0.02  # share that the hypervisor may take
PATIENCE = 5.0  # seconds to wait for a quiet moment before a slice is repeated
UNEXPLAINED = 0.10  # busy share of the two cores that no visible process answers for
HANDSHAKES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "handshakes.py")
H2LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "h2load.py")
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wrk_report.lua")


class Refused(Exception):
    """A slice with errors: answers that are not 2xx, or sockets that failed."""


@dataclass
class Slice:
    requests: int
    bytes: int
    rps: float
    cpu_ns: int  # of the proxy's process, whole tree
    user_share: float
    busy_ns: int  # of the pinned core
    p50: float
    p99: float
    p999: float
    backend_connections: int  # opened meanwhile
    load_core_busy: float  # share; near 1 the loader and the origin were the limit, not the proxy
    foreign: float  # shares of the slice's time
    steal: float
    unexplained: float
    culprit: str = ""
    disturbed: bool = False  # kept although others used the CPU
    late_p99: float = 0.0  # constant rate only: how late the loader itself sent, in µs

    def quiet(self, foreign):
        return (
            self.foreign <= foreign and self.steal <= STEAL and self.unexplained <= UNEXPLAINED
        )

    def noise(self):
        return self.foreign + self.steal + self.unexplained

    def work(self, case):
        """What costs are divided by: requests, or gigabytes where the case says so."""
        return self.bytes / 1e9 if case.per_gigabyte else self.requests


@dataclass
class Table:
    """All slices of one case: rounds of {proxy: Slice}, and what had to be repeated."""

    name: str
    may_repeat: int  # how many more slices may be thrown away; as many as there are, at first
    rounds: list = field(default_factory=list)
    repeated: int = 0
    kept_disturbed: int = 0
    failure: str = ""

    def column(self, proxy, value):
        return [value(one[proxy]) for one in self.rounds]

    def median(self, proxy, value):
        return statistics.median(self.column(proxy, value))

    def ratios(self, proxy, rivals, value):
        """`value` of proxy over the least of the rivals', round by round."""
        # Some loaders have no latencies.
        return [
            value(one[proxy]) / (min(value(one[rival]) for rival in rivals) or 1)
            for one in self.rounds
        ]

    def as_json(self):
        rounds = [{name: asdict(slice_) for name, slice_ in one.items()} for one in self.rounds]
        return {
            "repeated": self.repeated, "kept_disturbed": self.kept_disturbed,
            "failure": self.failure, "rounds": rounds,
        }


def loader(case, proxy, seconds):
    """The loader's command: wrk, or one that prints what `wrk_report.lua` does."""
    if case.streams:
        return [sys.executable, H2LOAD, tool("h2load"), str(case.connections), str(case.streams),
                str(seconds), f"https://{proxy.host}:{proxy.tls_port}{case.path}"]
    words = [tool("wrk"), "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "5s"]
    if case.close:
        words += ["-H", "Connection: close"]
    scheme, port = {
        "": ("http", proxy.port), "front": ("https", proxy.tls_port),
        "back": ("http", proxy.back_port),
    }[case.tls]
    port = proxy.h2_port if case.h2_back else proxy.tcp_port if case.tcp else port
    if case.handshakes:
        return [sys.executable, HANDSHAKES, case.handshakes, f"{proxy.host}:{port}", case.path, tool("openssl")]
    return words + ["-s", SCRIPT, f"{scheme}://{proxy.host}:{port}{case.path}"]


def read_result(out):
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise RuntimeError(f"the loader printed no result:\n{out.strip()}")
    return json.loads(lines[0].removeprefix("RESULT "))


class Bench:
    """The fleet and the cores it runs on; runs slices and makes tables of them."""

    def __init__(self, fleet, proxy_core, load_core, seed, repeat, say):
        self.fleet, self.proxy_core, self.load_core = fleet, proxy_core, load_core
        self.rng, self.repeat, self.say = random.Random(seed), repeat, say

    def slice(self, proxy, command, seconds):
        """Runs one loader against one proxy and accounts for both cores meanwhile."""
        cores = (self.proxy_core, self.load_core)
        own = self.fleet.pids()
        accepted = self.fleet.origin.accepted()
        ticks = proxy.child.user_system_ticks()
        before = clocks.Snapshot(cores, own)
        out, loader_ns = children.run_bounded(command, self.load_core, seconds + 15)
        time.sleep(SETTLE)
        after = clocks.Snapshot(cores, own)
        seen = read_result(out)
        if proxy.child.ended() or not set(own) >= set(proxy.child.pids()):
            raise Refused(f"{proxy.name} or its worker died:\n{proxy.child.last_words()}")
        if any(seen["errors"].values()) or not seen["requests"]:
            raise Refused(f"{proxy.name}: {seen['requests']} requests, errors {seen['errors']}")
        between = clocks.Between(before, after, loader_ns)
        user, system = (now - then for now, then in zip(proxy.child.user_system_ticks(), ticks))
        return Slice(
            requests=seen["requests"], bytes=seen["bytes"],
            rps=seen["requests"] / (seen["duration_us"] / 1e6),
            cpu_ns=sum(between.own[pid] for pid in proxy.child.pids()),
            user_share=user / max(1, user + system),
            busy_ns=between.busy[self.proxy_core],
            p50=seen["p50"], p99=seen["p99"], p999=seen["p999"],
            backend_connections=self.fleet.origin.accepted() - accepted - 1,
            load_core_busy=between.busy[self.load_core] / between.wall,
            foreign=between.foreign / between.wall, steal=between.steal / between.wall,
            unexplained=between.unexplained / between.wall, culprit=between.culprit,
            late_p99=seen.get("late_p99", 0.0),
        )

    def await_quiet(self):
        """Waits, but not for long, until others leave the CPU alone for a third of a second."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            _, before = clocks.everyone_else({os.getpid(), *self.fleet.pids()})
            time.sleep(0.3)
            _, after = clocks.everyone_else({os.getpid(), *self.fleet.pids()})
            used = sum(ns for _, ns in after.values()) - sum(ns for _, ns in before.values())
            if used <= clocks.TICK_NS:
                return

    def undisturbed(self, proxy, command, seconds, table, foreign):
        """An undisturbed slice, or the least disturbed of a few, marked as such."""
        best = None
        while True:
            one = self.slice(proxy, command, seconds)
            if one.quiet(foreign):
                return one
            self.say(
                f"  {proxy.name}: disturbed by {one.culprit or 'someone'}: {one.foreign:.0%} foreign,"
                f" {one.steal:.0%} stolen, {one.unexplained:.0%} unexplained"
            )
            if best is None or one.noise() < best.noise():
                best = one
            if table.may_repeat <= 0:
                best.disturbed = True
                table.kept_disturbed += 1
                return best
            table.may_repeat -= 1
            table.repeated += 1
            self.await_quiet()

    def table(self, name, rounds, seconds, renew, command, foreign=FOREIGN, among=None):
        """`rounds` rounds over all proxies, or those `among` them; `command(proxy, seconds)` is the
        loader."""
        proxies = self.fleet.proxies if among is None else among
        table = Table(name, may_repeat=rounds * len(proxies) if self.repeat else 0)
        for number in range(rounds):
            if number % renew == 0:
                self.fleet.restart()
                for proxy in proxies:
                    self.slice(proxy, command(proxy, 1), 1)
            order = list(proxies)
            self.rng.shuffle(order)
            done = {}
            for proxy in order:
                words = command(proxy, seconds)
                done[proxy.name] = self.undisturbed(proxy, words, seconds, table, foreign)
            table.rounds.append(done)
            shown = "  ".join(f"{p.name} {done[p.name].rps:,.0f}/s" for p in proxies)
            self.say(f"  round {number + 1}/{rounds}: {shown}")
        return table
