#!/usr/bin/env python3
"""A loader of HTTP/2: h2load for some seconds, its counts printed like the report of wrk
(`wrk_report.lua`).

h2load says how long requests took at least, on average and at most, and no quantiles: the average
stands for the median, and there are no others.
"""

import json
import re
import subprocess
import sys

UNITS = {"us": 1, "ms": 1e3, "s": 1e6}


def main():
    h2load, connections, streams, seconds, url = sys.argv[1:6]
    command = [h2load, "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=float(seconds) + 12, check=False,
                          text=True)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
                       done.stdout)
    data = re.search(r"\((\d+)\) data", done.stdout)
    statuses = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)\s", done.stdout)
    if done.returncode or not (counts and data and statuses and mean):
        sys.exit(f"h2load said no counts:\n{done.stdout}")
    _, succeeded, failed, errored, late = map(int, counts.groups())
    print("RESULT " + json.dumps({
        "requests": succeeded, "bytes": int(data[1]), "duration_us": float(seconds) * 1e6,
        "p50": float(mean[1]) * UNITS[mean[2]], "p99": 0, "p999": 0,
        # What is under way at the end of the time is neither.
        "errors": {"failed": failed, "errored": errored, "timeout": late,
                   "status": sum(map(int, statuses.groups()))},
    }))


if __name__ == "__main__":
    main()
