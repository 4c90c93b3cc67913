"""Where the loader and the proxies are: both on loopback, or each in a network namespace of its own.

Between namespaces lies a pair of virtual interfaces with an MTU of 1,500. Their segmentation is
left to them, as to a real card, so that Linux hands over up to 64 KiB at once. The namespaces are
held by this program and by a process that sleeps, and vanish with them.
"""

import os
import subprocess
import sys

import children

MTU = 1500
_OWN = "RINGWAY_LOADTEST_NETWORK"

# Addresses of the origin with the loader, and of the proxies; what a command of a proxy begins with.
loader = proxies = "127.0.0.1"
into = []


def enter_own():
    """Runs this program again in a network namespace of its own, unless it does already."""
    if os.environ.get(_OWN):
        _run("ip", "link", "set", "lo", "up")
        return
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", *rights, "--net", sys.executable, *sys.argv]
    os.execvpe(words[0], words, {**os.environ, _OWN: "1"})


def part(directory, core):
    """Gives the proxies a namespace besides our own. Ends with `children.stop_all`."""
    global loader, proxies, into
    holder = children.Child("network", ["unshare", "--net", "sleep", "infinity"], core, directory)
    pid = str(holder.process.pid)
    ours = os.readlink("/proc/self/ns/net")
    children.until(lambda: os.readlink(f"/proc/{pid}/ns/net") != ours, 5, "a namespace")
    there = ["nsenter", "--target", pid, "--net"]
    _run("ip", "link", "add", "loader", "type", "veth", "peer", "name", "proxies", "netns", pid)
    for before, name, address in (([], "loader", "10.87.0.1"), (there, "proxies", "10.87.0.2")):
        _run(*before, "ip", "address", "add", f"{address}/30", "dev", name)
        _run(*before, "ip", "link", "set", name, "mtu", str(MTU), "up")
    _run(*there, "ip", "link", "set", "lo", "up")
    loader, proxies, into = "10.87.0.1", "10.87.0.2", there


def _run(*words):
    subprocess.run(words, check=True, timeout=10)
