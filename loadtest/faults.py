"""What is done to the origins, as one table: the faults of the drill.

A fault is a part that is played on the three origins: it breaks something, yields how many seconds
to leave it so, and mends it in the end. It is the first origin that fails, and the last that a
rolling restart restarts.
"""

from dataclasses import dataclass
from typing import Callable

BROKEN = 4.0  # seconds a fault lasts; HAProxy takes up to 3.2 to find a paused origin
PAUSED = 5.0  # seconds a paused origin stands still
SLOW = 2.0  # seconds a slow answer takes: twice what the proxies wait
FLAP = 0.5  # seconds a flapping origin is away, and then there
AWAY = 0.5  # seconds between a restarted origin's end and its next life
SOME = 0.05  # the share of slow answers of an origin that is slow sometimes
LONG = 0.3  # seconds that these take longer
WATCHED = 12.0  # seconds of them
BETWEEN = 1.5  # seconds from there until the next one's turn


def kill(origins):
    origins[0].kill()
    yield BROKEN
    origins[0].start()


def pause(origins):
    origins[0].pause()
    yield PAUSED
    origins[0].resume()


def pause_two(origins):
    for origin in origins[:2]:
        origin.pause()
    yield PAUSED
    for origin in origins[:2]:
        origin.resume()


def link(origins):
    origins[0].cut()
    yield PAUSED
    origins[0].join()


def close_port(origins):
    origins[0].order("close")
    yield BROKEN
    origins[0].open()


def slow(origins):
    origins[0].order(f"delay {SLOW}")
    yield BROKEN
    origins[0].order("delay 0")


def sometimes(origins):
    origins[0].order(f"sometimes {SOME} {LONG}")
    yield WATCHED
    origins[0].order("sometimes 0 0")


def error_500(origins):
    origins[0].order("status 500")
    yield BROKEN
    origins[0].order("status 200")


def error_503(origins):
    origins[0].order("status 503\nhealth 503")
    yield BROKEN
    origins[0].order("status 200\nhealth 200")


def flap(origins):
    for _ in range(int(BROKEN / FLAP / 2)):
        origins[0].order("drop")
        yield FLAP
        origins[0].open()
        yield FLAP


def rolling_restart(origins):
    for origin in origins:
        if origin is not origins[0]:
            yield BETWEEN
        origin.finish()
        yield AWAY
        origin.start()


@dataclass(frozen=True)
class Fault:
    name: str
    says: str
    part: Callable
    lossless: bool = True  # whether Ringway is to let no request fail
    detected: bool = True  # whether there is one moment from which it is broken, and one to find it
    mended: int = 0  # the origin that was mended last
    network: bool = False  # whether it takes a network of its own
    origins: int = 3
    usual: str = ""  # what every origin is told at its start
    hedged: bool = False  # whether Ringway is drilled with hedging as well: a matter of times


FAULTS = [
    Fault("kill", "an origin is killed (SIGKILL), and started again after 4 s", kill),
    Fault("pause", "an origin is paused for 5 s (SIGSTOP): it accepts and never answers", pause),
    Fault("pause-two", "two of the three are paused for 5 s", pause_two),
    Fault("link", "packets to an origin and from it vanish for 5 s", link, network=True),
    Fault("close", "an origin closes its port; its connections go on", close_port),
    Fault("slow", "an origin takes 2 s for each answer, probes too", slow),
    Fault("sometimes", "one origin of four takes 0.3 s longer for 5 % of its answers; usual are 5 ms"
          " and exponentially distributed 8 ms more", sometimes, detected=False, origins=4,
          usual="delay 0.005\nspread 0.008", hedged=True),
    Fault("error-500", "an origin answers 500, but its health page is fine", error_500,
          lossless=False),
    Fault("error-503", "an origin answers 503, its health page too", error_503),
    Fault("flap", "an origin is away for 0.5 s and there for 0.5 s, four times", flap,
          detected=False),
    Fault("rolling", "the three origins are restarted one after the other, gracefully",
          rolling_restart, detected=False, mended=-1),
]
NAMES = [fault.name for fault in FAULTS]
