"""What must be known to read a result: machine, kernel, versions, system settings, commit."""

import datetime
import glob
import hashlib
import os
import platform

from programs import output, tool

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SYSCTLS = """
net.ipv4.tcp_congestion_control net.core.default_qdisc net.core.somaxconn net.core.rmem_max
net.core.wmem_max net.ipv4.tcp_rmem net.ipv4.tcp_wmem net.ipv4.tcp_moderate_rcvbuf
net.ipv4.tcp_slow_start_after_idle net.ipv4.tcp_autocorking net.ipv4.tcp_notsent_lowat
net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_max_tw_buckets net.ipv4.tcp_tw_reuse
net.ipv4.tcp_timestamps net.ipv4.ip_local_port_range net.core.busy_poll net.core.busy_read
kernel.io_uring_disabled kernel.sched_autogroup_enabled
""".split()


def facts():
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "virtual": "hypervisor" in _line("/proc/cpuinfo", "flags").split(),
        "mitigations": _mitigations(),
        "kernel": platform.release() + " " + platform.version(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "sysctls": {name: _sysctl(name) for name in SYSCTLS},
    }


def commit():
    short = output(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
    changed = output(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"])
    return short + ("+changes" if changed else "")


def versions(proxies, **tools):
    """{program: version}; of each Ringway also its binary's digest and the first line it says.

    `tools` are what else takes part: what it does, and the program that does it.
    """
    found = {name: _version(program) for name, program in tools.items()}
    found["python"] = platform.python_version()
    for proxy in proxies:
        if proxy.kind == "ringway":
            with open(proxy.binary, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()[:12]
            said = proxy.child.last_words(1000).splitlines() if proxy.child else []
            said = [line for line in said if line.startswith("ringway ")] or ["?"]
            found[proxy.name] = f"{said[0]} (binary sha256 {digest})"
        else:
            found[proxy.name] = _version(proxy.kind)
    return found


def _version(name):
    """The first line that `name -v` prints, without its copyright or address."""
    if name == "floor":
        return "floor.c, " + output(["gcc", "--version"]).partition("\n")[0]
    line = (output([tool(name), "-v"]).splitlines() or ["?"])[0]
    return line.split(" Copyright")[0].split(" - http")[0]


def _line(path, key):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(key):
                return " ".join(line.split(":", 1)[1].split())
    return "?"


def _sysctl(name):
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="ascii") as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def _mitigations():
    found = {}
    for path in sorted(glob.glob("/sys/devices/system/cpu/vulnerabilities/*")):
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
        if text != "Not affected":
            found[os.path.basename(path)] = text
    return found
