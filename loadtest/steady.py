"""Latency at a constant rate: a share of what the slower rival can do.

The capacity comes from the case of 64 connections of this run, or from a few slices of it made
here. Then slices of the constant rate go round the proxies like all others; see `openloop.lua` for
the loader and why it is not h2load.
"""

import os

from cases import BODIES, CASES
from programs import tool
from slices import loader

CONNECTIONS = 128
FOREIGN = 0.01  # share of a slice that others may use: a 99th percentile shows even that
LOADER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openloop.lua")


def capacity(bench, table, rivals, renew):
    """Requests per second of the slowest of `rivals`, the median of its slices."""
    if table is None or not table.rounds:
        case = next(case for case in CASES if case.name == "128b-64")
        bench.say("  capacity first: 128b-64")
        table = bench.table(case.name, 3, 1, renew, lambda p, s: loader(case, p, s))
    return min(table.median(rival, lambda one: one.rps) for rival in rivals)


def measure(bench, name, rate, rounds, seconds, renew):
    def command(proxy, seconds):
        words = [BODIES["128b"], int(rate), seconds, CONNECTIONS, bench.rng.randrange(1 << 30)]
        url = f"http://{proxy.host}:{proxy.port}/128b"
        return [tool("wrk"), "-t1", "-c1", "-d1s", "-s", LOADER, url, "--", *map(str, words)]

    return bench.table(name, rounds, seconds, renew, command, FOREIGN)
