"""CPU time of processes and cores, read from the kernel.

The CPU time of a process (all its threads, those that ended too, io_uring's workers too) comes from
its POSIX CPU clock in nanoseconds: the sum that schedstat shows per thread. The split into user and
system comes from /proc/PID/stat, in ticks of 10 ms, and is only used as a share. A core's busy time
is wall time minus the idle time of /proc/stat, which the kernel keeps exactly and shows in ticks.
"""

import os
import time

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: sum_exec_runtime of the thread group
_KTHREADD = 2
# Kernel threads that may be at work for our sockets; others (memory, disks) are strangers like any.
_OURS = ("ksoftirqd", "kworker", "rcu", "iou-", "irq/", "napi/")


def cpu_ns(pid):
    """CPU time of a whole process in nanoseconds; 0 once it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0


def _stat(pid):
    """Name, and the fields of /proc/PID/stat that follow it (the state is field 0)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    name, rest = text[text.index(b"(") + 1 :].rsplit(b")", 1)
    return name.decode("utf-8", "replace"), rest.split()


def user_system_ticks(pid):
    stat = _stat(pid)
    return (int(stat[1][11]), int(stat[1][12])) if stat else (0, 0)


def rss_bytes(pid):
    """Resident memory; smaps_rollup counts pages, statm may lag by what a CPU has not yet added."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Rss in smaps_rollup of {pid}")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def core_ns(core):
    """(idle, steal) of one core since boot, in nanoseconds."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{core} "):
                ticks = [int(word) for word in line.split()[1:]]
                return (ticks[3] + ticks[4]) * TICK_NS, ticks[7] * TICK_NS
    raise RuntimeError(f"/proc/stat knows no core {core}")


def everyone_else(own):
    """(ns of the kernel threads that serve us, {pid: (name, ns with reaped children)}).

    Of all processes but `own`. One that ends within a slice is not lost: its time moves to the
    process that reaped it, so the sum over all of them is kept.
    """
    kernel, foreign = 0, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in own:
            continue
        stat = _stat(entry)
        if stat is None:
            continue
        name, fields = stat
        if int(fields[1]) == _KTHREADD and name.startswith(_OURS):
            kernel += cpu_ns(int(entry))
        else:
            foreign[int(entry)] = (name, sum(map(int, fields[11:15])) * TICK_NS)
    return kernel, foreign


class Snapshot:
    """The machine at one moment: clocks of both cores, of our processes and of all others."""

    def __init__(self, cores, own):
        self.kernel, self.foreign = everyone_else({os.getpid(), *own})
        self.own = {pid: cpu_ns(pid) for pid in own}
        self.self = time.process_time_ns()
        self.cores = {core: core_ns(core) for core in cores}
        self.wall = time.monotonic_ns()


class Between:
    """What happened between two snapshots; `loader_ns` is the CPU of a loader that has ended."""

    def __init__(self, before, after, loader_ns):
        self.wall = after.wall - before.wall
        self.busy = {core: self._busy(before, after, core) for core in after.cores}
        self.steal = sum(after.cores[core][1] - before.cores[core][1] for core in after.cores)
        self.own = {pid: after.own[pid] - before.own.get(pid, 0) for pid in after.own}
        total = sum(ns for _, ns in after.foreign.values())
        self.foreign = max(0, total - sum(ns for _, ns in before.foreign.values()))
        self.culprit = self._culprit(before, after)
        known = sum(self.own.values()) + after.self - before.self + loader_ns
        self.kernel = after.kernel - before.kernel
        self.unexplained = max(0, sum(self.busy.values()) - known - self.kernel - self.foreign)

    def _busy(self, before, after, core):
        return max(0, self.wall - (after.cores[core][0] - before.cores[core][0]))

    @staticmethod
    def _culprit(before, after):
        grown = [
            (ns - before.foreign.get(pid, ("", 0))[1], name)
            for pid, (name, ns) in after.foreign.items()
        ]
        return max(grown, default=(0, ""))[1]
