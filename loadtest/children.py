"""Child processes: pinned, in a session of their own, and ended by pid on any way out.

A child gets SIGTERM from the kernel if this program dies without a chance to clean up. Nothing is
ever ended by name. A Child may be a tree (nginx: a master and its worker); its CPU time and memory
are those of the whole tree.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time

import clocks

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_alive = []


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Child:
    def __init__(self, name, command, core, directory, stdin=subprocess.DEVNULL):
        self.name, self.core = name, core
        self.log = os.path.join(directory, f"{name}.log")
        parent = os.getpid()

        def prepare():
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            os.sched_setaffinity(0, {core})
            if os.getppid() != parent:
                os._exit(1)

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=log, cwd=directory,
                env={
                    **os.environ, "RUNTIME_DIRECTORY": directory, "STATE_DIRECTORY": directory,
                    "XDG_STATE_HOME": directory, "NO_COLOR": "1",
                },
                preexec_fn=prepare, start_new_session=True,
            )
        _alive.append(self)

    def pids(self):
        return [self.process.pid, *clocks.children(self.process.pid)]

    def cpu_ns(self):
        return sum(map(clocks.cpu_ns, self.pids()))

    def user_system_ticks(self):
        pairs = [clocks.user_system_ticks(pid) for pid in self.pids()]
        return sum(user for user, _ in pairs), sum(system for _, system in pairs)

    def rss_bytes(self):
        return sum(map(clocks.rss_bytes, self.pids()))

    def signal(self, number):
        """To every process of the tree (to pause a worker, its master alone is not enough)."""
        for pid in self.pids():
            os.kill(pid, number)

    def ended(self):
        return self.process.poll() is not None

    def last_words(self, lines=15):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:]).strip()

    def stop(self):
        """TERM, half a second of patience, then KILL for what is left of the tree."""
        if self not in _alive:
            return
        _alive.remove(self)
        tree = self.pids()
        for number, patience in ((signal.SIGTERM, 0.5), (signal.SIGKILL, 2.0)):
            for pid in tree:
                _kill(pid, number)
            until = time.monotonic() + patience
            while time.monotonic() < until and (not self.ended() or _any_left(tree[1:])):
                time.sleep(0.01)
            if self.ended() and not _any_left(tree[1:]):
                return


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _any_left(pids):
    return any(os.path.exists(f"/proc/{pid}") for pid in pids)


def until(true, seconds, what):
    """Waits for a condition, but not for longer than that."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def stop_all():
    for child in list(_alive):
        child.stop()


def run_bounded(command, core, seconds):
    """Runs a loader to its end; returns (stdout, CPU ns it used). Raises if it fails or hangs."""
    parent = os.getpid()

    def prepare():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {core})
        if os.getppid() != parent:
            os._exit(1)

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=prepare, start_new_session=True, text=True,
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except BaseException:
        process.kill()
        process.wait()
        raise
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{out.strip()}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return out, int(used * 1e9)
