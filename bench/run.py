"""Compares a cluster of Coracle with one of etcd, with the same bytes without Raft, and with one redis-server. See bench/run."""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import time

import plot
from docs import write_between
from systems import Bare, Coracle, Etcd, Redis, versions
from turns import cpu_seconds

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The longest election timeout, which is what a leader that was stopped is compared with.
ELECTION = 0.6

middle = statistics.median


def resident(pids):
    """The memory of the largest of them, in MiB."""
    most = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        most = max(most, int(line.split()[1]) / 1024)
    return most


def ours():
    """The processor's time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(system, case):
    """Requests a second, latencies, and the processor's time of a request: that of the servers, and of whoever asks."""
    command = system.command(case)
    servers, asking = cpu_seconds(system.pids()), ours()
    # What hangs is an error, and not waited for.
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10 * case["seconds"] + 60)
    if ran.returncode != 0:
        raise SystemExit(f"bench/run: {' '.join(command)}: {ran.stderr or ran.stdout}")
    result = json.loads(ran.stdout)
    kind = result.get("reads" if case["reads"] else "writes", result)
    # The warm-up is a fifth of the time.
    requests = result["per_second"] * case["seconds"] * 1.2
    return {"per_second": result["per_second"], "p50_us": kind["p50_us"], "p99_us": kind["p99_us"],
            "cpu_us": (cpu_seconds(system.pids()) - servers) / requests * 1e6, "asking_us": (ours() - asking) / requests * 1e6}


def cases(full, seconds):
    """What is asked, of whom, as rows of the table."""
    everybody, readers = ("coracle", "etcd", "bare", "redis"), ("coracle", "lease", "etcd", "redis")
    rows = []

    def add(reads, clients, connections, size, systems):
        rows.append({"reads": reads, "clients": clients, "connections": connections, "size": size, "systems": systems, "seconds": seconds})

    for clients in (1, 64, 256):
        add(0, clients, min(clients, 8), 256, everybody)
    add(0, 256, 256, 256, everybody)
    for clients in (1, 64, 256):
        add(100, clients, min(clients, 8), 256, readers)
    if full:
        for reads, systems in ((0, everybody), (100, readers)):
            for connections in (8, 1024):
                add(reads, 1024, connections, 256, systems)
            for size in (16, 1024):
                for clients in (1, 64, 256):
                    add(reads, clients, min(clients, 8), size, systems)
        add(100, 256, 256, 256, readers)
    return rows


def name_of(case):
    kind = "reads" if case["reads"] else "durable puts"
    clients = "1 client" if case["clients"] == 1 else f"{case['clients']} clients"
    connections = "" if case["clients"] == 1 else f" on {case['connections']} connections"
    return f"{kind}, {clients}{connections}, {case['size']} bytes"


class Figures:
    """What was measured: for each row and system a result of each round."""

    def __init__(self, rows):
        self.rows, self.seen = rows, {}

    def add(self, at, system, result):
        self.seen.setdefault((at, system), []).append(result)

    def row(self, **wanted):
        return next(at for at, case in enumerate(self.rows) if all(case[key] == value for key, value in wanted.items()))

    def ratio(self, at, one, other, what):
        pairs = zip(self.seen[at, one], self.seen[at, other])
        ratios = [mine[what] / theirs[what] for mine, theirs in pairs]
        return f"**{middle(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"

    def median(self, at, system, what):
        return middle([result[what] for result in self.seen[at, system]])

    def headline(self):
        """The six rows that are shown first."""
        many, each = self.row(reads=0, clients=256, connections=8, size=256), self.row(reads=0, clients=256, connections=256)
        one, read = self.row(reads=0, clients=1, size=256), self.row(reads=100, clients=256, connections=8, size=256)
        rate = lambda at, system: f"{self.median(at, system, 'per_second'):,.0f} a second"
        late = lambda at, system: f"{self.median(at, system, 'p50_us'):,.0f} us"
        cost = lambda at, system: f"{self.median(at, system, 'cpu_us'):.1f} us"
        rows = [("durable puts, 256 clients on 8 connections, beside etcd", rate, many, "coracle", "etcd", "per_second"),
                ("the same beside the same bytes without Raft", rate, many, "coracle", "bare", "per_second"),
                ("one client's median latency beside the same bytes without Raft", late, one, "coracle", "bare", "p50_us"),
                ("processor time of all servers for a put, 256 clients, beside those", cost, many, "coracle", "bare", "cpu_us"),
                ("linearizable reads, 256 clients, beside etcd", rate, read, "coracle", "etcd", "per_second"),
                ("reads by a lease, 256 clients, beside etcd's linearizable ones", rate, read, "lease", "etcd", "per_second"),
                ("durable puts, a connection for each of 256 clients, beside the same bytes without Raft", rate, each, "coracle", "bare",
                 "per_second")]
        lines = ["| what | Coracle | the other | ratio, with the least and the greatest |", "| --- | --- | --- | --- |"]
        for what, show, at, system, other, figure in rows:
            lines.append(f"| {what} | {show(at, system)} | {show(at, other)} | {self.ratio(at, system, other, figure)} |")
        return lines

    def everything(self):
        lines = ["| what | who | a second | p50, p99 | us of the servers | us of whoever asks | Coracle's throughput, as a ratio |",
                 "| --- | --- | --- | --- | --- | --- | --- |"]
        for at, case in enumerate(self.rows):
            for system in (name for name in case["systems"] if (at, name) in self.seen):
                of = lambda what, system=system, at=at: self.median(at, system, what)
                ratio = "" if system == "coracle" else self.ratio(at, "coracle", system, "per_second")
                lines.append(f"| {name_of(case) if system == 'coracle' else ''} | {system} | {of('per_second'):,.0f} | {of('p50_us') / 1000:.2f} ms, "
                             f"{of('p99_us') / 1000:.2f} ms | {of('cpu_us'):.1f} | {of('asking_us'):.1f} | {ratio} |")
        return lines

    def picture(self):
        shown = [at for at, case in enumerate(self.rows) if case["size"] == 256]
        of = lambda at: {name: self.median(at, name, "per_second") for name in self.rows[at]["systems"] if name in plot.COLOURS}
        return plot.bars([(name_of(self.rows[at]).replace(", 256 bytes", ""), of(at)) for at in shown])


def take_turns(wishes, systems, figures):
    """Each row by all systems, in an order that changes with each round."""
    for turn in range(wishes.rounds):
        for at, case in enumerate(figures.rows):
            names = [name for name in case["systems"] if name in systems]
            if "before" in systems:
                names.append("before")
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                figures.add(at, name, measure(systems[name], case))
        print(f"{turn + 1} of {wishes.rounds} rounds done", flush=True)


def falls(systems, count):
    """How long a fallen leader was missed, in words."""
    kills = {name: [systems[name].fall() * 1000 for _ in range(count if name == "coracle" else min(count, 10))] for name in ("coracle", "etcd")}
    pauses = [systems["coracle"].fall(signal.SIGSTOP) / ELECTION for _ in range(count)]
    told = lambda times: f"median {middle(times):,.0f} ms, worst of {len(times)} {max(times):,.0f} ms"
    return (f"From a SIGKILL of the leader to the next accepted write: Coracle {told(kills['coracle'])}; etcd {told(kills['etcd'])}. From a SIGSTOP of "
            f"Coracle's leader, as a share of the longest election timeout ({ELECTION * 1000:.0f} ms): median {middle(pauses):.2f}, worst of "
            f"{len(pauses)} {max(pauses):.2f}.")


def conditions(wishes, memory):
    return (f"`bench/run --rounds {wishes.rounds} --seconds {wishes.seconds}{' --full' if wishes.full else ''}`: medians of {wishes.rounds} rounds in turns, real processes and "
            f"real `fdatasync`, everything with its defaults but for `--lease 300ms` where reads go by a lease, whoever asks on the same {os.cpu_count()} cores ({platform.machine()}); {versions()}. "
            f"Memory of the largest process at rest, and at most under load: {memory}.")


def report(wishes, figures, memory, fallen):
    headline, told = figures.headline(), conditions(wishes, memory)
    lines = [*headline, "", told, fallen, "", *figures.everything()]
    print("\n".join(lines))
    if wishes.out:
        with open(wishes.out, "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
    if wishes.docs:
        write_between(os.path.join(HERE, "README.md"), "headline", [*headline, "", told])
        picture = ["", "![Requests a second, on a logarithmic scale](performance.svg)", ""]
        write_between(os.path.join(HERE, "docs/performance.md"), "headline", [*headline, "", told, fallen, *picture, *figures.everything()])
        with open(os.path.join(HERE, "docs/performance.svg"), "w", encoding="utf-8") as out:
            out.write(figures.picture())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("coracle")
    parser.add_argument("loader")
    parser.add_argument("directory")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--falls", type=int, default=20)
    parser.add_argument("--before", metavar="PROGRAM")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--out", metavar="FILE")
    wishes = parser.parse_args()
    figures = Figures(cases(wishes.full, wishes.seconds))
    below = lambda name: os.path.join(wishes.directory, name)
    systems = {}
    try:
        systems["coracle"] = Coracle(wishes.coracle, below("coracle"))
        systems["lease"] = Coracle(wishes.coracle, below("lease"), ["--lease", "300ms"])
        systems["etcd"] = Etcd(wishes.loader, below("etcd"))
        systems["bare"] = Bare(wishes.coracle, below("bare"))
        systems["redis"] = Redis(wishes.coracle, below("redis"))
        if wishes.before:
            systems["before"] = Coracle(wishes.before, below("before"))
        time.sleep(2)
        rest = {name: resident(system.pids()) for name, system in systems.items()}
        take_turns(wishes, systems, figures)
        memory = ", ".join(f"{name} {rest[name]:.0f} and {resident(system.pids()):.0f} MiB" for name, system in systems.items() if name != "lease")
        fallen = falls(systems, wishes.falls)
    finally:
        for system in systems.values():
            system.end()
    report(wishes, figures, memory, fallen)


main()
