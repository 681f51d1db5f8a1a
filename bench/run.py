"""Compares a cluster of Coracle with one of etcd, and with one redis-server. See bench/run."""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import time

from nodes import Nodes, free_ports, until

SYSTEMS = ("coracle", "etcd", "redis")


def cpu_seconds(pids):
    """What these processes have used of the processors."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pids):
    """Their memory, in MiB, the largest of them."""
    most = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        most = max(most, int(line.split()[1]) / 1024)
    return most


class Coracle:
    """Three processes with their defaults."""

    def __init__(self, program, directory):
        os.makedirs(directory)
        self.program, self.nodes = program, Nodes(program, directory)
        self.nodes.start_all()

    def pids(self):
        return [process.pid for process in self.nodes.running.values()]

    def load(self, case):
        leader = self.nodes.client[self.nodes.leader()]
        return resp_load(self.program, leader, case)

    def next_write(self):
        """Kills the leader, and says how long it took until a write was accepted again."""
        leader = self.nodes.leader()
        others = [self.nodes.client[node] for node in self.nodes.ids if node != leader]
        self.nodes.end(leader)
        began = time.time()
        until("a write is accepted again", lambda: accepted(others), pause=0.001)
        took = time.time() - began
        self.nodes.start(leader)
        until("it is ready again", lambda: self.nodes.is_ready(leader))
        return took

    def end(self):
        self.nodes.end_all()


def accepted(addresses):
    """Whether some node takes a write now."""
    import socket
    for address in addresses:
        host, port = address.split(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5) as stream:
                stream.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n")
                if stream.recv(64).startswith(b"+OK"):
                    return True
        except OSError:
            pass
    return False


class Redis:
    """One process that syncs each write: no replica, no election, no majority."""

    def __init__(self, program, directory):
        os.makedirs(directory)
        self.program, self.port = program, free_ports(1)[0]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", directory, "--appendonly", "yes",
             "--appendfsync", "always", "--save", ""], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def pids(self):
        return [self.process.pid]

    def load(self, case):
        return resp_load(self.program, f"127.0.0.1:{self.port}", case)

    def end(self):
        self.process.kill()
        self.process.wait()


def resp_load(program, address, case):
    command = [program, "bench", "--to", address, "--clients", str(case["clients"]), "--connections", str(case["connections"]),
               "--value-size", str(case["size"]), "--reads", str(case["reads"]), "--seconds", str(case["seconds"]), "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    kind = result["reads" if case["reads"] else "writes"]
    return {"per_second": result["per_second"], "p50_us": kind["p50_us"], "p99_us": kind["p99_us"]}


class Etcd:
    """Three processes with their defaults."""

    def __init__(self, loader, directory):
        self.loader, ports = loader, free_ports(6)
        self.client = {node: f"127.0.0.1:{ports[node - 1]}" for node in (1, 2, 3)}
        peer = {node: f"http://127.0.0.1:{ports[node + 2]}" for node in (1, 2, 3)}
        everybody = ",".join(f"n{node}={peer[node]}" for node in peer)
        self.processes = {}
        for node in (1, 2, 3):
            data = os.path.join(directory, str(node))
            os.makedirs(data, mode=0o700)
            with open(os.path.join(directory, f"log-{node}"), "wb") as log:
                self.processes[node] = subprocess.Popen(
                    ["etcd", "--name", f"n{node}", "--data-dir", data, "--listen-peer-urls", peer[node],
                     "--initial-advertise-peer-urls", peer[node], "--listen-client-urls", f"http://{self.client[node]}",
                     "--advertise-client-urls", f"http://{self.client[node]}", "--initial-cluster", everybody],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.leader()

    def leader(self):
        def found():
            for node, address in self.client.items():
                asked = subprocess.run(["etcdctl", "--endpoints", address, "endpoint", "status", "-w", "json"], check=False,
                                       capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"})
                try:
                    status = json.loads(asked.stdout)[0]["Status"]
                except (ValueError, LookupError):
                    continue
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return node
            return None
        return until("etcd has a leader", found, pause=0.5)

    def pids(self):
        return [process.pid for process in self.processes.values()]

    def load(self, case):
        command = [self.loader, "--to", self.client[self.leader()], "--clients", str(case["clients"]), "--connections",
                   str(case["connections"]), "--value-size", str(case["size"]), "--reads", str(case["reads"]), "--seconds",
                   str(case["seconds"])]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def end(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()


def cases(full, seconds):
    """What is asked, as rows of the table."""
    shared = lambda clients: min(clients, 8)
    rows = []
    for reads in (0, 100):
        rows += [{"clients": clients, "connections": shared(clients), "size": 256, "reads": reads} for clients in (1, 64, 256)]
    if full:
        for reads in (0, 100):
            rows += [{"clients": 1024, "connections": 8, "size": 256, "reads": reads}, {"clients": 256, "connections": 256, "size": 256, "reads": reads}]
            rows += [{"clients": 256, "connections": 8, "size": size, "reads": reads} for size in (16, 1024)]
    return [{**row, "seconds": seconds} for row in rows]


def middle(numbers):
    return statistics.median(numbers)


def table(rows, rounds, seen):
    """The figures, as Markdown."""
    lines = [
        "| what | clients, connections, bytes | Coracle | etcd | ratio of throughput | of median latency | of CPU | Redis |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    show = lambda one: f"{middle([it['per_second'] for it in one]):,.0f}/s, p50 {middle([it['p50_us'] for it in one]) / 1000:.2f} ms, {middle([it['cpu_us'] for it in one]):.0f} us CPU"
    for at, case in enumerate(rows):
        of = {system: seen[at, system] for system in SYSTEMS}

        def ratio(what):
            ratios = [of["coracle"][turn][what] / of["etcd"][turn][what] for turn in range(rounds)]
            return f"{middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(
            f"| {'linearizable reads' if case['reads'] else 'durable puts'} | {case['clients']}, {case['connections']}, {case['size']} | {show(of['coracle'])} | "
            f"{show(of['etcd'])} | {ratio('per_second')} | {ratio('p50_us')} | {ratio('cpu_us')} | {middle([it['per_second'] for it in of['redis']]):,.0f}/s |")
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("coracle")
    parser.add_argument("loader")
    parser.add_argument("directory")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--out")
    wishes = parser.parse_args()
    rows = cases(wishes.full, wishes.seconds)
    below = lambda name: os.path.join(wishes.directory, name)
    systems, seen, memory = {}, {}, {}
    try:
        systems["coracle"] = Coracle(wishes.coracle, below("coracle"))
        systems["etcd"] = Etcd(wishes.loader, below("etcd"))
        systems["redis"] = Redis(wishes.coracle, below("redis"))
        time.sleep(2)
        for turn in range(wishes.rounds):
            for at, case in enumerate(rows):
                for system in SYSTEMS[turn % 3:] + SYSTEMS[:turn % 3]:
                    one = systems[system]
                    before = cpu_seconds(one.pids())
                    result = one.load(case)
                    used = cpu_seconds(one.pids()) - before
                    # The warm-up is a fifth of the time.
                    result["cpu_us"] = used / (result["per_second"] * case["seconds"] * 1.2) * 1e6
                    memory[system] = max(memory.get(system, 0), resident(one.pids()))
                    seen.setdefault((at, system), []).append(result)
            print(f"{turn + 1} of {wishes.rounds} rounds done", flush=True)
        falls = [systems["coracle"].next_write() * 1000 for _ in range(5)]
    finally:
        for one in systems.values():
            one.end()
    etcd = subprocess.run(["etcd", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    redis = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
    lines = table(rows, wishes.rounds, seen)
    lines += ["", f"{wishes.rounds} rounds of {wishes.seconds} s for each, in turns; {os.cpu_count()} cores, {platform.machine()}; {etcd}, Redis {redis} alone with "
              f"`appendfsync always`. CPU is that of all servers for one request. Memory of the largest process: "
              + ", ".join(f"{system} {memory[system]:.0f} MiB" for system in SYSTEMS)
              + f". A SIGKILL of Coracle's leader until the next write is accepted: {min(falls):.0f} to {max(falls):.0f} ms, median {middle(falls):.0f} ms, of {len(falls)}."]
    print("\n".join(lines))
    if wishes.out:
        with open(wishes.out, "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")


main()
