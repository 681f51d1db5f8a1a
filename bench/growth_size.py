"""Series of bench/growth in which something grows: values, clients, nodes, the log, the keys."""

import socket
import time
from functools import partial

from nodes import until
from turns import CPU, MEMORY, P50, P99, RATE, Cluster, Column, Point, table, take_turns, told

MIB = 1 << 20


def bytes_told(size):
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def based(points):
    """The first of them is the base of all."""
    for point in points:
        point.base = points[0]
    return points


def values(bench, stack):
    """Durable SETs of larger and larger values."""
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three")))
    sizes = (16, 256, 4096, 64 << 10, MIB, 8 * MIB)
    points = []
    for clients in (1, 32):
        # So few keys that all values together stay small, and long enough for the largest to come through.
        points += based([Point(f"{bytes_told(size)}, {told(clients)}",
                               partial(cluster.ask, clients, max(bench.seconds, clients * size // (40 * MIB)), size=size,
                                       keys=max(4, min(10_000, 64 * MIB // size))))
                         for size in sizes])
    take_turns("values", points, bench.rounds)
    for point in points:
        for turn in point.seen:
            turn["rate_mib"] = turn["bytes"] / MIB
    rates = [Column("SETs/s", "rate"), Column("MiB/s", "rate_mib", ",.2f", ratio=False)]
    lines = table("value", points, [Column("p50, us", "p50"), P99, *rates, CPU, MEMORY])
    return ["Durable SETs at the leader of three; 32 clients share 8 connections. The ratios are to 16 bytes. "
            "Of the largest, 32 clients are measured for longer: their commands alone are a quarter of a gigabyte.", "", *lines]


def clients(bench, stack):
    """More and more clients, on few connections and on one each."""
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three")))
    shared = [(count, min(count, 8)) for count in (1, 8, 64, 256, 1024, 4096)]
    own = [(count, count) for count in (64, 256, 1024)]
    points = based([Point(f"{count:,} on {connections:,}", partial(cluster.ask, count, bench.seconds, connections=connections))
                    for count, connections in shared + own])
    take_turns("clients", points, bench.rounds)
    lines = table("clients on connections", points, [RATE, Column("p50, us", "p50"), P99, CPU, MEMORY])
    return ["Durable SETs of 256 bytes at the leader of three.", "", *lines]


def nodes(bench, stack):
    """More and more nodes."""
    counts = (1, 3, 5, 7)
    clusters = {count: stack.enter_context(Cluster(bench.coracle, bench.below(str(count)), count)) for count in counts}
    points = []
    for asking in (1, 64):
        points += based([Point(f"{count}, {told(asking)}", partial(clusters[count].ask, asking, bench.seconds)) for count in counts])
    take_turns("nodes", points, bench.rounds)
    lines = table("nodes", points, [RATE, Column("p50, us", "p50"), P99, CPU])
    return ["Durable SETs of 256 bytes at the leader; 64 clients share 8 connections. All servers share the cores of one computer, and "
            "those whose turn it is not are idle, so this is what nodes cost in work rather than what they cost on computers of their "
            "own.", "", *lines]


def sessions(bench, stack):
    """At the leader, and at a follower, which passes writes on."""
    cluster = stack.enter_context(Cluster(bench.coracle, bench.below("three")))
    follower = lambda: 1 + cluster.leader() % 3
    points = []
    for reads in (0, 100):
        for asking in (1, 64):
            what, ask = f"{'GETs' if reads else 'SETs'} of {told(asking)}", partial(cluster.ask, asking, bench.seconds, reads=reads)
            points += based([Point(f"{what} at the leader", ask), Point(f"{what} at a follower", lambda ask=ask: ask(at=follower()))])
    take_turns("sessions", points, bench.rounds)
    lines = table("what", points, [RATE, Column("p50, us", "p50"), P99, CPU])
    return ["256 bytes, three nodes; 64 clients share 8 connections. A follower passes writes on in a session.", "", *lines]


class Connections:
    """Many connections that each have one command under way, so that no two commands come together."""

    def __init__(self, address, count):
        host, port = address.split(":")
        self.all = []
        try:
            for _ in range(count):
                self.all.append(socket.create_connection((host, int(port)), timeout=60))
                self.all[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for one in self.all:
            one.close()

    def ask(self, count, request):
        """Asks so many times; `request` makes bytes of a number."""
        done = 0
        while done < count:
            some = self.all[:count - done]
            for number, one in enumerate(some):
                one.sendall(request(done + number))
            for one in some:
                answer = b""
                while not answer.endswith(b"\r\n"):
                    more = one.recv(4096)
                    assert more, "the server closed a connection"
                    answer += more
                assert not answer.startswith(b"-"), answer
            done += len(some)


def set_key(number, value):
    key = b"bench:%08d" % number
    return b"*3\r\n$3\r\nSET\r\n$14\r\n%b\r\n$%d\r\n%b\r\n" % (key, len(value), value)


def fill_log(cluster, entries):
    """Writes until the log has had so many entries."""
    leader = cluster.leader()
    with Connections(cluster.client[leader], 256) as connections:
        while (left := entries - cluster.status(leader)["last_index"]) > 0:
            connections.ask(min(left, 50_000), lambda number: set_key(number % 10_000, b"v" * 16))


def restarted(cluster):
    """How long a follower that is killed takes from its start until it is ready, in seconds."""
    node = 1 + cluster.leader() % len(cluster.ids)
    cluster.end(node)
    began = time.time()
    cluster.start(node)
    until("a restarted follower is ready", lambda: cluster.is_ready(node), pause=0.01)
    return time.time() - began


def log(bench, stack):
    """Longer and longer logs, each of a cluster of its own."""
    lengths = (10_000, 30_000) if bench.quick else (10_000, 100_000, 1_000_000) + ((10_000_000,) if bench.long else ())
    clusters = {length: stack.enter_context(Cluster(bench.coracle, bench.below(str(length)))) for length in lengths}
    kept = []
    for length, cluster in clusters.items():
        fill_log(cluster, length)
        # A snapshot that became due is taken soon.
        time.sleep(0 if bench.quick else 3)
        status = cluster.status(cluster.leader())
        snapshot = (status.get("snapshot") or {}).get("index", "none")
        kept.append(f"| {length:,} | {status['first_index']:,} | {status['last_index']:,} | {status['disk_bytes'] / MIB:.0f} | "
                    f"{snapshot if isinstance(snapshot, str) else format(snapshot, ',')} |")

    def measure(cluster):
        figures = cluster.ask(64, bench.seconds)
        return {**figures, "restart": restarted(cluster)}
    points = based([Point(f"{length:,}", lambda cluster=cluster: measure(cluster)) for length, cluster in clusters.items()])
    take_turns("log", points, bench.rounds)
    lines = table("entries", points, [RATE, P99, Column("restart, s", "restart", ".2f"), MEMORY])
    return ["SETs of 64 clients on 8 connections at the leader of three, after so many entries of one command each. The server compacts "
            "its log by itself and has no setting that keeps it, so only what the second table shows was still there. A restart is that "
            "of a killed follower, until it is ready.", "", *lines, "",
            "| entries | first_index | last_index | disk, MiB | newest snapshot |", "| --- | --- | --- | --- | --- |", *kept]


def fill_keys(cluster, count, size):
    """Sets so many keys, many at once."""
    leader, value, at_once = cluster.leader(), b"v" * size, 500
    host, port = cluster.client[leader].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as stream:
        for start in range(0, count, at_once):
            numbers = range(start, min(count, start + at_once))
            stream.sendall(b"".join(set_key(number, value) for number in numbers))
            left = 5 * len(numbers)
            while left:
                answer = stream.recv(left)
                assert answer and b"-" not in answer, f"the server does not take more keys: {answer!r}"
                left -= len(answer)


def keys(bench, stack):
    """More and more keys, each number in a cluster of its own."""
    size, counts = 64, [10**power for power in range(3, 6 if bench.quick else 8 if bench.long else 7)]
    clusters, memory = {}, []
    for count in counts:
        clusters[count] = cluster = stack.enter_context(Cluster(bench.coracle, bench.below(str(count))))
        # What the first requests cost once is no key's.
        cluster.ask(64, 1, size=size, keys=1)
        before = cluster.memory(cluster.leader())
        fill_keys(cluster, count, size)
        each = (cluster.memory(cluster.leader()) - before) * MIB / count
        memory.append(f"{count:,}: {each:,.0f} bytes" if count >= 100_000 else f"{count:,}: too few to tell")
    points = []
    for reads in (0, 100):
        points += based([Point(f"{'GET' if reads else 'SET'}, {count:,} keys",
                               partial(clusters[count].ask, 64, bench.seconds, size=size, reads=reads, keys=count)) for count in counts])
    take_turns("keys", points, bench.rounds)
    lines = table("what", points, [RATE, Column("p50, us", "p50"), P99, CPU, MEMORY])
    return [f"64 clients on 8 connections at the leader of three, values of {size} bytes, each of the keys as likely. Memory that the "
            "leader took for a key of 14 bytes and its value when all were new, with what the log and snapshots took meanwhile: "
            f"{'; '.join(memory)}.", "", *lines]
