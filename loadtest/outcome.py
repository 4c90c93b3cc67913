"""What a fault did to clients, computed from every request of a drill: pure, no clock, no process.

The broken origin says when the requests that reached it were sent, the load what became of each. A
request is *touched* by the fault if it reached the broken origin, failed, or took so long that it
must have waited for it. Found is the fault when a while passes without one that is touched: single
requests that are let through later, as a try, are none of it.
"""

from collections import Counter
from dataclasses import dataclass

LATE = 0.3  # seconds from which a request must have waited for something broken
QUIET = 0.25  # seconds without a touched request after which the fault counts as found
SETTLED = 2.0  # seconds of it that do not count for its times: what is usual has to be learnt
WINDOW = 0.2  # seconds of requests in which an origin's share is looked at
FULL = 0.9  # of its third, from which its share is full again


@dataclass(frozen=True)
class Outcome:
    requests: int
    lags: int  # how often the load fell behind: more than never, and others had the core
    failed: int
    reasons: dict  # {status or kind of problem: how many}
    late: int
    slowest: float  # seconds
    found: float  # seconds from the fault's beginning until all go elsewhere; None = never
    said: float  # seconds from its beginning until the proxy says so in its log; None = it does not
    returned: float  # seconds from its end until the origin's share is full; None = never
    p95: float  # seconds, of the requests sent while it lasted
    p99: float
    extra: float  # what the origins were sent then beyond one request for each, as a share
    began: float
    ended: float


def of(answers, lags, all_seen, heard, began, ended, origin, detected):
    """The outcome of one drill; `all_seen` is when what reached each origin was sent, of which that
    of number `origin` is the broken one, `heard` when the proxy said that it takes it out."""
    seen, origins = all_seen[origin], len(all_seen)
    meanwhile = sorted(one.took for one in answers if began + SETTLED < one.sent < ended)
    sent = sum(began + SETTLED < when < ended for one in all_seen for when in one)
    failed = [one for one in answers if one.failed]
    return Outcome(
        requests=len(answers), lags=len(lags), failed=len(failed),
        reasons=dict(Counter(one.reason for one in failed)),
        late=sum(one.took > LATE for one in answers),
        slowest=max(one.took for one in answers),
        found=found(answers, seen, began, ended) if detected else None,
        said=heard and heard - began,
        returned=returned(answers, ended, origin, origins), began=began, ended=ended,
        p95=share_within(meanwhile, 0.95), p99=share_within(meanwhile, 0.99),
        extra=sent / max(len(meanwhile), 1) - 1,
    )


def share_within(times, share):
    """How long this share of them took at most."""
    return times[min(int(len(times) * share), len(times) - 1)] if times else None


def found(answers, seen, began, ended):
    """How long after `began` the last touched request was sent before none was for a while."""
    touched = [one.sent for one in answers if one.failed or one.took > LATE] + seen
    last = began
    for sent in sorted(sent for sent in touched if began < sent < ended):
        if sent - last > QUIET:
            break
        last = sent
    return last - began if ended - last > QUIET else None


def returned(answers, ended, origin, origins):
    """How long after `ended` a window begins in which the origin has its share."""
    later = sorted(one[:4] for one in answers if one.sent >= ended)
    first = own = 0
    for last, (sent, _, _, answered_by) in enumerate(later):
        own += answered_by == origin
        while sent - later[first][0] > WINDOW:
            # The window is whole: from `first` to the one before `last`.
            count = last - first
            if own - (answered_by == origin) >= FULL * count / origins:
                return later[first][0] - ended
            own -= later[first][3] == origin
            first += 1
    return None
