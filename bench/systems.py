"""What bench/run.py compares: clusters of whole processes on this computer, each with its defaults."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

from nodes import Nodes, free_ports, until


class Coracle:
    """Three processes."""

    def __init__(self, program, directory, arguments=()):
        os.makedirs(directory)
        self.program, self.nodes = program, Nodes(program, directory, arguments=arguments)
        self.nodes.start_all()

    def pids(self):
        return [process.pid for process in self.nodes.running.values()]

    def command(self, case):
        return resp_load(self.program, self.nodes.client[self.nodes.leader()], case)

    def fall(self, how=signal.SIGKILL):
        """Kills or stops the leader, and says how long it took until a write was accepted again."""
        leader = self.nodes.leader()
        others = [self.nodes.client[node] for node in self.nodes.ids if node != leader]
        process = self.nodes.running[leader]
        process.send_signal(how)
        began = time.time()
        until("a write is accepted again", lambda: any(takes_set(address) for address in others), pause=0.001)
        took = time.time() - began
        if how == signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
        else:
            self.nodes.end(leader)
            self.nodes.start(leader)
        until("it is ready again", lambda: self.nodes.is_ready(leader))
        return took

    def end(self):
        self.nodes.end_all()


def takes_set(address):
    """Whether this node takes a write now."""
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as stream:
            stream.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n")
            return stream.recv(64).startswith(b"+OK")
    except OSError:
        return False


def resp_load(program, address, case):
    return [program, "bench", "--to", address, "--clients", str(case["clients"]), "--connections", str(case["connections"]),
            "--value-size", str(case["size"]), "--reads", str(case["reads"]), "--seconds", str(case["seconds"]), "--json"]


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

    def command(self, case):
        return resp_load(self.program, f"127.0.0.1:{self.port}", case)

    def end(self):
        self.process.kill()
        self.process.wait()


class Bare:
    """Three processes that move and sync the bytes of each write without Raft (server/src/bench/bare.rs)."""

    def __init__(self, program, directory):
        self.program, self.processes = program, []
        followers = [self.start(os.path.join(directory, name), "follower") for name in ("follower-1", "follower-2")]
        self.address = self.start(os.path.join(directory, "first"), "first", "--followers", ",".join(followers))

    def start(self, directory, *arguments):
        os.makedirs(directory)
        # Each ends with its standard input.
        process = subprocess.Popen([self.program, "bench", "--bare", *arguments, "--dir", directory], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        line = process.stdout.readline()
        if "ready: " not in line:
            raise SystemExit(f"bench/run: a bare process said {line!r} and not where it listens")
        return line.split("ready: ")[1].strip()

    def pids(self):
        return [process.pid for process in self.processes]

    def command(self, case):
        return resp_load(self.program, self.address, case)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Etcd:
    """Three processes."""

    def __init__(self, loader, directory):
        self.loader, self.directory, ports = loader, directory, free_ports(6)
        self.client = {node: f"127.0.0.1:{ports[node - 1]}" for node in (1, 2, 3)}
        self.peer = {node: f"http://127.0.0.1:{ports[node + 2]}" for node in (1, 2, 3)}
        self.processes = {}
        for node in (1, 2, 3):
            os.makedirs(os.path.join(directory, str(node)), mode=0o700)
            self.start(node)
        self.leader()

    def start(self, node):
        everybody = ",".join(f"n{other}={self.peer[other]}" for other in self.peer)
        with open(os.path.join(self.directory, f"log-{node}"), "ab") as log:
            self.processes[node] = subprocess.Popen(
                ["etcd", "--name", f"n{node}", "--data-dir", os.path.join(self.directory, str(node)), "--listen-peer-urls", self.peer[node],
                 "--initial-advertise-peer-urls", self.peer[node], "--listen-client-urls", f"http://{self.client[node]}",
                 "--advertise-client-urls", f"http://{self.client[node]}", "--initial-cluster", everybody],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask(self, node, path, question, patience=5):
        """What a node answers by its gateway; nothing if it does not."""
        request = urllib.request.Request(f"http://{self.client[node]}{path}", data=json.dumps(question).encode())
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return {}

    def leader(self):
        def found():
            for node in self.client:
                status = self.ask(node, "/v3/maintenance/status", {})
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return node
            return None
        return until("etcd has a leader", found, pause=0.05)

    def pids(self):
        return [process.pid for process in self.processes.values()]

    def command(self, case):
        return [self.loader, "--to", self.client[self.leader()], "--clients", str(case["clients"]), "--connections",
                str(case["connections"]), "--value-size", str(case["size"]), "--reads", str(case["reads"]), "--seconds",
                str(case["seconds"])]

    def fall(self):
        """Kills the leader, and says how long it took until a write was accepted again."""
        leader = self.leader()
        text = lambda it: base64.b64encode(it).decode()
        takes = lambda node: self.ask(node, "/v3/kv/put", {"key": text(b"k"), "value": text(b"v")}, patience=0.25).get("header")
        self.processes[leader].kill()
        began = time.time()
        self.processes[leader].wait()
        others = [node for node in self.client if node != leader]
        until("etcd takes a write again", lambda: any(takes(node) for node in others), pause=0.001)
        took = time.time() - began
        self.start(leader)
        until("that node takes writes again", lambda: takes(leader))
        return took

    def end(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


def versions():
    """Of the others, in words."""
    said = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
    number = lambda text: re.search(r"\d+\.\d+\.\d+", text).group()
    return f"etcd {number(said('etcd', '--version'))}, Redis {number(said('redis-server', '--version'))}"
