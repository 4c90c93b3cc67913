"""Valgrind's callgrind: how a Ringway is started under it, and what its dumps say.

A dump has the instructions and the system calls of each function itself, and the calls from one
function to another. What `gate.c` does for itself is left out.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass

OPTIONS = ["--tool=callgrind", "--vgdb=no", "--separate-threads=yes", "--collect-systime=yes",
           "--dump-before=ringway_mark", "--compress-strings=no", "--compress-pos=no"]

# The functions whose calls are counted. Fewer names than there are would count too little, so each
# row must be met at least once over a whole run, start and new connections included.
WAKES = re.compile(r"monoio::task::raw::poll(<.*)?")
ALLOCATIONS = re.compile(r"malloc|calloc|realloc|memalign|aligned_alloc|posix_memalign")


def command(gate, folder):
    """What is written before a Ringway's command so that it is counted; dumps go to `folder`."""
    return ["env", f"LD_PRELOAD={gate.library}", f"RINGWAY_GATE={gate.path}", "LD_BIND_NOW=1",
            "valgrind", *OPTIONS, f"--callgrind-out-file={folder}/dump",
            f"--log-file={folder}/valgrind.log"]


@dataclass
class Dump:
    """What a core did between two marks."""

    path: str
    functions: Counter  # instructions of each function itself
    system_calls: int = 0
    wakes: int = 0
    allocations: int = 0

    @property
    def instructions(self):
        return sum(self.functions.values())


def dumps(folder, gate):
    """Of each mark, in order; of the thread that made them, as there is a dump of each thread."""
    texts, cores = {}, set()
    for name in os.listdir(folder):
        if match := re.fullmatch(r"dump\.(\d+)-(\d+)", name):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8", errors="replace") as file:
                text = texts[int(match[1]), match[2], path] = file.read()
            if "cfn=ringway_mark\n" in text:
                cores.add(match[2])
    return [_read(path, text, gate.library) for (_, thread, path), text in sorted(texts.items())
            if thread in cores]


def _read(path, text, ours):
    dump, columns = Dump(path, Counter()), {}
    here = function = there = called = ""
    is_inclusive = False
    for line in text.splitlines():
        key, mark, value = line.partition("=")
        if line[:1].isdigit():
            costs = line.split()[1:]
            if not is_inclusive and here != ours:
                dump.functions[function] += int(costs[columns["Ir"]])
                if len(costs) > columns["sysCount"]:
                    dump.system_calls += int(costs[columns["sysCount"]])
            is_inclusive = False
        elif line.startswith("events:"):
            columns = {name: number for number, name in enumerate(line.split()[1:])}
        elif not mark:
            continue
        elif key == "ob":
            here = there = value
        elif key == "fn":
            function = _plain(value)
        elif key == "cob":
            there = value
        elif key == "cfn":
            called = _plain(value)
        elif key == "calls":
            if here != ours:
                _count(dump, called, there == ours, int(value.split()[0]))
            is_inclusive, there = True, here
    return dump


def _count(dump, called, is_ours, calls):
    if is_ours:
        # What waits for completions is one system call outside valgrind, whatever it takes here.
        dump.system_calls += calls * (called == "syscall")
    elif WAKES.fullmatch(called):
        dump.wakes += calls
    elif ALLOCATIONS.fullmatch(called):
        dump.allocations += calls


def _plain(name):
    """A function's name without the mark of a recursion."""
    return re.sub(r"'\d+$", "", name)
