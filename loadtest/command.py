"""What the commands of this folder share: flags, tools, binaries, and the frame around a run."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import children
import machine
import programs

DEFAULT_BINARY = os.path.join("target", "release", "ringway")
KINDS = ("ringway", "haproxy", "nginx", "floor")


def say(text):
    print(text, file=sys.stderr, flush=True)


def add_flags(parser, default_json):
    add = parser.add_argument
    add("--proxies", metavar="LIST", default=",".join(KINDS), help="default %(default)s")
    add("--ringway", metavar="[NAME=]PATH", action="append", help="binary to measure; several for"
        f" A/B (default {DEFAULT_BINARY}, built if missing)")
    add("--driver", choices=["auto", "io_uring", "epoll", "both"],
        help="Ringway's driver; both = each binary twice, as NAME and NAME-epoll")
    add("--proxy-core", metavar="CORE", type=int, default=0, help="default %(default)s")
    add("--load-core", metavar="CORE", type=int, default=1, help="default %(default)s")
    add("--json", metavar="FILE", default=os.path.join(machine.ROOT, default_json),
        help=f"where the JSON goes (default {default_json})")
    add("--record", metavar="LABEL", nargs="?", const="", help="also write"
        " loadtest/results/DATE-LABEL.{json,md} (default label: the commit)")


def parse(parser, names, what):
    """The options, checked; `--only` becomes the list of what is chosen of `names`."""
    options = parser.parse_args()
    options.only = [name for word in options.only or names for name in word.split(",")]
    for name in options.only:
        if name not in names:
            parser.error(f"no {what} `{name}`; there are: {' '.join(names)}")
    options.proxies = [name for name in options.proxies.split(",") if name]
    for name in options.proxies:
        if name not in KINDS:
            parser.error(f"no proxy `{name}`; there are: {' '.join(KINDS)}")
    cores, wanted = os.sched_getaffinity(0), {options.proxy_core, options.load_core}
    if len(wanted) < 2 or not wanted <= cores:
        parser.error(f"needs two different cores of {sorted(cores)} (--proxy-core, --load-core)")
    return options


def check_tools(options, *others):
    tools = {"ringway": (), "floor": ("gcc",)}
    check_commands(*others, *(tool for name in options.proxies for tool in tools.get(name, (name,))))


def check_commands(*needed):
    missing = sorted(name for name in {*needed} if not programs.tool(name))
    if missing:
        sys.exit(f"missing: apt-get install {' '.join(missing)}")


def binaries(options):
    """[(name, path, driver)] of every Ringway to measure; builds the default one if need be."""
    found = []
    for number, word in enumerate(options.ringway or [""]):
        name, _, path = word.rpartition("=")
        if not path:
            path = os.path.join(machine.ROOT, DEFAULT_BINARY)
            if not os.path.exists(path):
                say("building target/release/ringway …")
                command = ["cargo", "build", "--release"]
                subprocess.run(command, check=True, timeout=1800, cwd=machine.ROOT)
        if not os.access(path, os.X_OK):
            sys.exit(f"no such program: {path}")
        path = os.path.abspath(path)
        name = name or ("ringway" if number == 0 else f"ringway-{number + 1}")
        if options.driver == "both":
            found += [(name, path, "io_uring"), (f"{name}-epoll", path, "epoll")]
        else:
            found.append((name, path, options.driver))
    return found


def check_names(proxies):
    names = [proxy.name for proxy in proxies]
    if len({"origin", *names}) != len(names) + 1:
        sys.exit(f"names must differ: {' '.join(names)}")


def end(_number, _frame):
    raise KeyboardInterrupt


def framed(options, work):
    """Runs `work(directory)`, which returns its failures; returns the exit status. Leaves no process running."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    os.sched_setaffinity(0, {options.load_core})
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ringway-loadtest-") as directory:
        try:
            failures = work(directory)
        except KeyboardInterrupt:
            say("interrupted")
            return 130
        except (RuntimeError, OSError) as problem:
            say(f"FAILED: {problem}")
            return 1
        finally:
            children.stop_all()
    say(f"took {time.monotonic() - began:.0f} s")
    for failure in failures:
        say(f"FAILED: {failure.splitlines()[0]}")
    return 1 if failures else 0
