"""Points that take turns, and the tables of what they cost. For bench/growth."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from nodes import Nodes, until


class Trouble(Exception):
    """Something that the user can do something about."""


@dataclass
class Point:
    """One row of a table. `measure` returns figures by name."""
    label: str
    measure: object
    base: object = None
    seen: list = field(default_factory=list)

    def figures(self, name):
        return [turn[name] for turn in self.seen if turn.get(name) is not None]

    def ratios(self, name):
        """To the base, of the same round each."""
        pairs = zip(self.seen, self.base.seen)
        return [own[name] / other[name] for own, other in pairs if own.get(name) is not None and other.get(name)]


@dataclass
class Column:
    """What is shown of a figure, in which unit, and whether its ratio to the base is shown too."""
    title: str
    name: str
    form: str = ",.0f"
    ratio: bool = True


RATE, P50, P99 = Column("requests/s", "rate"), Column("p50, us", "p50", ratio=False), Column("p99, us", "p99", ratio=False)
CPU = Column("CPU of all servers for a request, us", "cpu", ",.1f", ratio=False)
MEMORY = Column("memory of the largest server, MiB", "memory", ratio=False)


def spread(numbers, form):
    """The median, with the least and the greatest."""
    if not numbers:
        return "-"
    middle, least, most = (format(one, form) for one in (statistics.median(numbers), min(numbers), max(numbers)))
    return middle if len(numbers) == 1 or least == most else f"{middle} ({least} to {most})"


def told(clients):
    return "1 client" if clients == 1 else f"{clients:,} clients"


def take_turns(name, points, rounds):
    """Measures all points in each round; each round begins with another one."""
    for turn in range(rounds):
        began, first = time.time(), turn % len(points)
        taken = {}
        for point in points[first:] + points[:first]:
            taken[id(point)] = point.measure()
        for point in points:
            point.seen.append(taken[id(point)])
        print(f"{name}: {turn + 1} of {rounds} rounds done, {time.time() - began:.0f} s", file=sys.stderr, flush=True)


def table(first, points, columns):
    """The figures, as Markdown."""
    titles = [first]
    for column in columns:
        titles += [column.title] + ([f"ratio of {column.title.split(',')[0]}"] if column.ratio else [])
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for point in points:
        cells = [point.label]
        for column in columns:
            cells.append(spread(point.figures(column.name), column.form))
            if column.ratio:
                cells.append("1" if point.base is point else spread(point.ratios(column.name), ".2f"))
        lines.append("| " + " | ".join(cells) + " |")
    lines += failures(points)
    return lines


def failures(points):
    """What failed, so that nothing looks fast because it was refused."""
    lines = []
    for point in points:
        kinds = {}
        for turn in point.seen:
            for kind, count in turn.get("errors", {}).items():
                kinds[kind] = kinds.get(kind, 0) + count
        if kinds:
            answered = sum(turn.get("count", 0) for turn in point.seen)
            told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
            lines.append(f"- failed at \"{point.label}\", beside {answered:,.0f} that were answered: {told}")
    return ["", *lines] if lines else []


def cpu_seconds(pids):
    """What these processes have used of the processors."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Cluster(Nodes):
    """A cluster in a directory of its own. `each` has further arguments of a node, `asks` those of whoever asks."""

    def __init__(self, program, directory, count=3, arguments=(), each=None, asks=()):
        os.makedirs(directory, exist_ok=True)
        super().__init__(program, directory, count, arguments)
        self.common, self.each, self.asks = list(arguments), each or {}, list(asks)

    def start(self, node):
        self.arguments = self.common + self.each.get(node, [])
        super().start(node)

    def __enter__(self):
        try:
            self.start_all()
            until("all nodes are ready", lambda: all(self.is_ready(node) for node in self.ids))
            # A new cluster has things to settle, and memory to touch for the first time.
            self.ask(64, 1)
        except BaseException:
            self.end_all()
            raise
        return self

    def __exit__(self, *_):
        self.end_all()

    def pids(self):
        return [process.pid for process in self.running.values()]

    def largest(self):
        """The memory of the largest process, in MiB."""
        return max(self.memory(node) for node in self.running)

    def alive(self):
        """None of them has ended by itself."""
        for node, process in self.running.items():
            if process.poll() is not None:
                with open(os.path.join(self.directory, f"log-{node}"), "rb") as log:
                    tail = log.read()[-600:].decode(errors="replace")
                raise Trouble(f"node {node} ended by itself, code {process.returncode}; the end of its log:\n{tail}")

    def ask(self, clients, seconds, *, connections=None, at=None, size=256, reads=0, keys=10_000):
        """Figures of so many clients, at the leader unless another node is said."""
        at = at or self.leader()
        command = [self.program, "bench", "--to", self.client[at], "--clients", str(clients), "--connections",
                   str(connections or min(clients, 8)), "--value-size", str(size), "--reads", str(reads), "--keys", str(keys),
                   "--seconds", str(seconds), "--json", *self.asks]
        before = cpu_seconds(self.pids())
        try:
            run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds * 2 + 60)
        except subprocess.TimeoutExpired as late:
            raise Trouble(f"`coracle bench` did not end in {late.timeout:.0f} s: {' '.join(command)}") from late
        self.alive()
        if not run.stdout.startswith("{"):
            raise Trouble(f"`{' '.join(command)}` says: {run.stderr.strip()}")
        seen = json.loads(run.stdout)
        kind = seen["reads" if reads == 100 else "writes"]
        if not kind["count"]:
            kind = {}
        # The warm-up, which is not counted, is a fifth of the time, and a second at most.
        requests = seen["per_second"] * (seconds + min(1, seconds / 5))
        cpu = (cpu_seconds(self.pids()) - before) / requests * 1e6 if requests else None
        return {"rate": seen["per_second"], "p50": kind.get("p50_us"), "p99": kind.get("p99_us"), "cpu": cpu, "memory": self.largest(),
                "bytes": seen["per_second"] * size, "errors": seen["errors"], "count": seen["per_second"] * seconds}


def processors():
    """What all processes have used of the processors, in seconds, and what a hypervisor gave to others."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _, _, irq, soft, stolen = (int(one) for one in stat.readline().split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + soft) / ticks, stolen / ticks


class Machine:
    """How busy the computer was with other things. Begun and asked while none of our own processes runs."""

    def __init__(self):
        self.began, self.own = time.time(), sum(os.times()[:4])
        self.busy, self.stolen = processors()

    def told(self):
        took, (busy, stolen) = time.time() - self.began, processors()
        others = max(0, busy - self.busy - (sum(os.times()[:4]) - self.own)) / took
        one, _, fifteen = os.getloadavg()
        stolen = (stolen - self.stolen) / took
        return (f"Others, and the system itself, kept {others:.2f} of {os.cpu_count()} cores busy, and a hypervisor took {stolen:.2f}; "
                f"load {one:.1f}, in the last 15 minutes {fifteen:.1f}; {took:.0f} s in all")


def computer(directory):
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], check=False, capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} cores, {platform.machine()}, data on {kind or 'a disk of an unknown kind'}"
