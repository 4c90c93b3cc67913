#!/usr/bin/env python3
"""A loader of handshakes: a connection, one GET, close; each new, or with the session of before.

Runs `openssl s_time` twice at once for about a second and prints its counts like the report of wrk
(`wrk_report.lua`). wrk itself takes part in resumption whether one wants it or not. A connection
that was resumed, or was not, against what is measured, is an error.
"""

import json
import re
import subprocess
import sys
import time

AT_ONCE = 2


def main():
    how, address, path, openssl = sys.argv[1:5]
    command = [openssl, "s_time", "-connect", address, f"-{how}", "-www", path, "-time", "1"]
    began = time.monotonic()
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(AT_ONCE)
    ]
    outputs = [one.communicate(timeout=15)[0] for one in running]
    took = time.monotonic() - began
    requests = resumed = size = 0
    for out in outputs:
        found = re.search(r"(\d+) connections in \d+ real seconds, (\d+) bytes read", out)
        requests += int(found[1]) if found else 0
        size += int(found[1]) * int(found[2]) if found else 0
        # A letter for each connection: `r` = resumed.
        resumed += sum(line.count("r") for line in out.splitlines() if re.fullmatch(r"[rtTuU*]+", line))
    wanted = requests if how == "reuse" else 0
    result = {
        "requests": requests, "bytes": size, "duration_us": took * 1e6,
        "p50": 0, "p99": 0, "p999": 0,
        "errors": {"otherwise": abs(wanted - resumed),
                   "failed": sum(one.returncode != 0 for one in running)},
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
