"""Clusters of whole processes, for the scripts that look at them from outside."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

PATIENCE = 120


def free_ports(count):
    """Ports that nobody listens on now, from below the range that the system gives to outgoing connections: whoever dials one
    of those before its node listens may be connected with itself, and then the node cannot listen."""
    ports = []
    while len(ports) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def until(what, check, patience=PATIENCE, pause=0.1):
    """What `check` returns, once that is something."""
    end, last = time.time() + patience, None
    while time.time() < end:
        last = check()
        if last:
            return last
        time.sleep(pause)
    raise SystemExit(f"*** FAILED: waited in vain until {what}; last seen: {last!r}")


class Nodes:
    """Nodes 1 to `count`, which form a cluster by themselves. Their directories are below `directory`."""

    def __init__(self, program, directory, count=3, arguments=()):
        self.program, self.directory, self.arguments = program, directory, list(arguments)
        self.ids = range(1, count + 1)
        ports = free_ports(3 * count)
        place = lambda kind: {node: f"127.0.0.1:{ports[kind * count + node - 1]}" for node in self.ids}
        self.client, self.peer, self.admin = place(0), place(1), place(2)
        self.running = {}

    def start(self, node):
        join = ",".join(self.client.values())
        with open(os.path.join(self.directory, f"log-{node}"), "ab") as log:
            self.running[node] = subprocess.Popen(
                [self.program, "serve", "--id", str(node), "--data-dir", os.path.join(self.directory, str(node)),
                 "--peer-addr", self.peer[node], "--client-addr", self.client[node], "--admin-addr", self.admin[node],
                 "--expect", str(len(self.ids)), "--join", join, *self.arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_all(self):
        for node in self.ids:
            self.start(node)
        return self.leader()

    def end(self, node, how=signal.SIGKILL):
        process = self.running.pop(node)
        process.send_signal(how)
        process.wait()

    def end_all(self):
        for node in list(self.running):
            self.end(node)

    def get(self, node, path):
        """What the admin address answers; none if it says no, or nothing."""
        try:
            with urllib.request.urlopen(f"http://{self.admin[node]}{path}", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def status(self, node):
        return json.loads(self.get(node, "/status") or "{}")

    def is_ready(self, node):
        return self.get(node, "/readyz") is not None

    def leader(self):
        """The leader, by its own word."""
        leads = lambda node: self.status(node).get("role") == "leader"
        return until("there is a leader", lambda: next((node for node in self.running if leads(node)), None))

    def memory(self, node):
        """What the process has resident, in MiB."""
        with open(f"/proc/{self.running[node].pid}/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def load(self, node, *arguments):
        """redis-benchmark against a node."""
        host, port = self.client[node].split(":")
        subprocess.run(["redis-benchmark", "-h", host, "-p", port, "-q", *arguments], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def bench(self, node, clients, seconds):
        """Writes a second of so many clients, and how long 99 of 100 took at most, in milliseconds."""
        out = subprocess.run([self.program, "bench", "--to", self.client[node], "--clients", str(clients), "--seconds", str(seconds), "--json"],
                             check=True, capture_output=True, text=True).stdout
        seen = json.loads(out)
        assert seen["failed"] == 0, seen["errors"]
        return seen["per_second"], seen["writes"]["p99_us"] / 1000


if __name__ == "__main__":
    # nodes.py COUNT: so many free ports, a line each.
    print(*free_ports(int(sys.argv[1])), sep="\n")
