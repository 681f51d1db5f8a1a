"""Series of bench/growth in which something else goes on: a follower that catches up, a slow disk, TLS, snapshots."""

import contextlib
import os
import socket
import statistics
import subprocess
import threading
import time
from functools import partial

from growth_size import based, fill_keys
from nodes import until
from turns import CPU, P99, RATE, Cluster, Column, Point, Trouble, table, take_turns, told

MIB = 1 << 20


class Meanwhile(threading.Thread):
    """Does something again and again while something else is measured. What goes wrong in it is told at its end."""

    def __init__(self, step):
        super().__init__(daemon=True)
        self.step, self.over, self.problem = step, threading.Event(), None

    def run(self):
        try:
            while not self.over.is_set() and self.step():
                pass
        except Exception as problem:  # pylint: disable=broad-except
            self.problem = problem

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(120)

    def judge(self):
        if self.problem or self.is_alive():
            raise Trouble(f"what was to go on meanwhile failed: {self.problem or 'it does not end'}")


def catching_up(bench, stack):
    """A follower that was away catches up."""
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three")))
    away = 2 if bench.quick else 8

    def whole():
        leader = cluster.leader()
        near = lambda node: cluster.status(leader)["last_index"] - (cluster.status(node).get("applied") or 0) < 100
        until("all have caught up", lambda: all(cluster.is_ready(node) and near(node) for node in cluster.ids))
        return leader

    def calm():
        whole()
        return cluster.ask(64, bench.seconds, connections=64)

    def absent():
        """The base of what comes next: two nodes alone are faster than three."""
        leader = whole()
        node = 1 + leader % 3
        cluster.end(node)
        try:
            return cluster.ask(64, bench.seconds, connections=64)
        finally:
            cluster.start(node)

    def catches_up():
        leader = whole()
        node = 1 + leader % 3
        cluster.end(node)
        cluster.ask(256, away, connections=256)
        goal, began, took = cluster.status(leader)["last_index"], time.time(), []
        cluster.start(node)
        behind = goal - (cluster.status(node).get("applied") or 0)

        def look():
            if (cluster.status(node).get("applied") or 0) >= goal:
                took.append(time.time() - began)
                return False
            time.sleep(0.02)
            return True
        with Meanwhile(look) as watcher:
            figures = cluster.ask(64, bench.seconds, connections=64)
            if watcher.is_alive():
                watcher.join(60)
        watcher.judge()
        return {**figures, "took": took[0] if took else None, "behind": behind}
    points = based([Point("three nodes, all there", calm), Point("one away", absent), Point("one catches up", catches_up)])
    take_turns("catching-up", points, bench.rounds)
    behind = [Column("entries behind", "behind", ratio=False), Column("caught up after, s", "took", ".2f", ratio=False)]
    lines = table("what", points, [RATE, P99, CPU, *behind])
    return [f"Durable SETs of 256 bytes, 64 clients on as many connections. The follower was killed, 256 clients wrote for {away} s, and "
            "it was started again just before it was measured; it had caught up once it had applied all that the leader had then. Where "
            "that took less time than a turn, the rest of the turn was calm.", "", *lines]


class Disk:
    """A directory on powercut, our file system that is as slow as it is told."""

    def __init__(self, program, path):
        os.makedirs(path)
        self.path = path
        self.process = subprocess.Popen([program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        try:
            self.answer("")
        except BaseException:
            self.__exit__()
            raise
        return self

    def answer(self, line):
        """Says a line, and waits for its answer."""
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer.startswith("ok"):
            raise Trouble(f"powercut says {answer.strip()!r} at {self.path}: it needs root, /dev/fuse and the right to mount")

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if os.path.ismount(self.path):
            subprocess.run(["umount", "--lazy", self.path], check=False)
        self.process.stdout.close()


def slow_disk(bench, stack):
    """One disk of three is slow: a follower's, and the leader's."""
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        return ["Left out: a slow disk is a file system of our own, which needs root and /dev/fuse. "
                "In a container: `--device /dev/fuse --cap-add SYS_ADMIN`."]
    disks = {node: stack.enter_context(Disk(bench.powercut, bench.below("three", str(node)))) for node in (1, 2, 3)}
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three")))

    def measure(slow, clients):
        leader = cluster.leader()
        node = {"leader": leader, "follower": 1 + leader % 3}.get(slow)
        term = cluster.status(leader)["term"]
        if node:
            disks[node].answer("slow 20000")
        try:
            figures = cluster.ask(clients, bench.seconds)
        finally:
            if node:
                disks[node].answer("slow 0")
        until("all are ready again", lambda: all(cluster.is_ready(one) for one in cluster.ids))
        return {**figures, "elections": cluster.status(cluster.leader())["term"] - term}
    points = []
    for clients in (1, 64):
        points += based([Point(f"{label}, {told(clients)}", partial(measure, slow, clients)) for label, slow in
                         (("all fast", None), ("a follower's slow", "follower"), ("the leader's slow", "leader"))])
    take_turns("slow-disk", points, bench.rounds)
    lines = table("disks", points, [RATE, Column("p50, us", "p50"), P99, Column("elections", "elections", ratio=False)])
    return ["Durable SETs of 256 bytes at the leader of three, each on a file system in memory (FUSE) whose syncs take 2 ms, and 20 ms "
            "more where it is slow; 64 clients share 8 connections.", "", *lines]


def certificates(bench, directory):
    """An authority's, three nodes' and a client's."""
    for words in (["init", "--cluster", "growth"], ["node", "1"], ["node", "2"], ["node", "3"], ["client", "bench"]):
        command = [bench.coracle, "certs", *words, "--dir", directory]
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if made.returncode:
            raise Trouble(f"`coracle certs {' '.join(words)}` says: {made.stderr.strip()}")
    shown = lambda name: ["--tls-ca", os.path.join(directory, "ca.pem"), "--tls-cert", os.path.join(directory, f"{name}.pem"),
                          "--tls-key", os.path.join(directory, f"{name}.key")]
    return {node: shown(f"node-{node}") for node in (1, 2, 3)}, shown("client-bench")


def tls(bench, stack):
    """Everything encrypted, beside everything plain."""
    plain = stack.enter_context(Cluster(bench.coracle, bench.below("plain")))
    each, own = certificates(bench, bench.below("certs"))
    require = ["--client-tls", "require", "--client-certs", "required"]
    encrypted = stack.enter_context(Cluster(bench.coracle, bench.below("encrypted"), 3, require, each, own))
    points = []
    for clients, connections in ((1, 1), (256, 8), (256, 256)):
        points += based([Point(f"{kind}, {told(clients)} on {connections}",
                               partial(cluster.ask, clients, bench.seconds, connections=connections))
                         for kind, cluster in (("plain", plain), ("TLS", encrypted))])
    take_turns("tls", points, bench.rounds)
    lines = table("connections", points, [RATE, Column("p50, us", "p50"), P99, CPU])
    goals = ((1, "p50", 1), (3, "rate", -1), (5, "rate", -1))
    slower = [(statistics.median(points[at].ratios(what)) - 1) * sign * 100 for at, what, sign in goals]
    met = lambda lost, goal: f"{lost:.0f} % ({'met' if lost <= goal else 'missed'})"
    return ["Durable SETs of 256 bytes at the leader of three; TLS with certificates at both ends, between nodes and of clients. The "
            "program that asks runs on the same cores, and encrypts too.", "", *lines, "",
            f"Against the goals: one client's median latency grows by {met(slower[0], 15)}, at most 15 % is the goal; the throughput of "
            f"256 clients falls by {met(slower[1], 25)} on 8 connections and {met(slower[2], 25)} on 256, at most 25 % is the goal."]


def take_snapshot(address, taken):
    """Has a node take a snapshot, waits for it, and notes it down: a node to which nothing new has come tells of the same one."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=100) as stream:
        stream.sendall(b"*2\r\n$7\r\nCORACLE\r\n$8\r\nSNAPSHOT\r\n")
        answer = stream.recv(256)
    assert answer and not answer.startswith(b"-"), answer
    taken.add((address, answer))
    return True


def snapshots(bench, stack):
    """Snapshots are taken one after the other."""
    # A client that wants a snapshot waits for it, longer than requests may take by default.
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three"), 3, ["--timeout", "60s"]))
    count, size = (20_000, 256) if bench.quick else (200_000, 1024)
    fill_keys(cluster, count, size)

    def beside(whose):
        leader = cluster.leader()
        all_of = {"none": [], "leader": [leader], "all": list(cluster.ids)}[whose]
        taken = set()
        with contextlib.ExitStack() as takers:
            watched = [takers.enter_context(Meanwhile(partial(take_snapshot, cluster.client[node], taken))) for node in all_of]
            figures = cluster.ask(64, bench.seconds, keys=count)
        for one in watched:
            one.judge()
        return {**figures, "taken": len(taken)}
    points = based([Point("no snapshot", partial(beside, "none")), Point("the leader takes snapshots", partial(beside, "leader")),
                    Point("all nodes take snapshots", partial(beside, "all"))])
    take_turns("snapshots", points, bench.rounds)
    lines = table("meanwhile", points, [RATE, Column("p50, us", "p50"), P99, CPU, Column("snapshots taken", "taken", ratio=False)])
    return [f"Durable SETs of 256 bytes of 64 clients on 8 connections at the leader of three, over {count:,} keys of {size:,} bytes "
            f"at first (a snapshot of some {count * size / MIB:.0f} MiB). Nodes that take snapshots take one after the other.", "", *lines]
