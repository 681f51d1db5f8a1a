"""Figures of snapshots and starts, on whole processes. See scripts/figures."""

import os
import shutil
import signal
import socket
import sys
import threading
import time

from nodes import Nodes, until

MIB = 1 << 20


class Client:
    """Speaks to one node, as plainly as it gets."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=120)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [word.encode() if isinstance(word, str) else word for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        return self.file.readline().rstrip()


def start_after_many_writes(program, directory):
    """2,000,000 writes of 16 bytes over 10,000 keys: the time from the start of the process until it serves."""
    nodes = Nodes(program, directory, 1)
    try:
        nodes.start_all()
        nodes.load(1, "-t", "set", "-n", "2000000", "-r", "10000", "-d", "16", "-c", "16", "-P", "64")
        times = []
        for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL):
            nodes.end(1, how)
            began = time.time()
            nodes.start(1)
            until("it is ready", lambda: nodes.is_ready(1), pause=0.01)
            times.append(time.time() - began)
        status = nodes.status(1)
        print(f"2,000,000 writes: ready {min(times):.2f} to {max(times):.2f} s after the start, with an election in it; the log begins at "
              f"{status['first_index']} of {status['last_index']}, and takes {status['disk_bytes'] / MIB:.0f} MiB")
    finally:
        nodes.end_all()


def take_snapshot(nodes, node):
    answer = Client(nodes.client[node]).send("CORACLE", "SNAPSHOT")
    assert not answer.startswith(b"-"), answer


class Writer(threading.Thread):
    """Writes a small key every few milliseconds, and remembers how long each took."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.client, self.took, self.over = Client(address), [], False
        self.start()

    def run(self):
        while not self.over:
            began = time.time()
            assert self.client.send("SET", "small", "value") == b"+OK"
            self.took.append(time.time() - began)
            time.sleep(0.005)

    def worst(self):
        """What 99 of 100 took no longer than, in milliseconds, since this was asked last."""
        took, self.took = sorted(self.took), []
        return took[int(len(took) * 0.99)] * 1000


def fill(nodes, leader, count):
    client = Client(nodes.client[leader])
    for number in range(count):
        assert client.send("SET", f"large:{number}", os.urandom(MIB - 64)) == b"+OK"


def load_beside_snapshots(program, directory, size=1024):
    """A gigabyte of keys: what clients see while one snapshot is taken and another is sent, at about half of what saturates the cluster
    and at that."""
    nodes = Nodes(program, directory, 3, ["--timeout", "60s"])
    try:
        leader = nodes.start_all()
        fill(nodes, leader, size)
        take_snapshot(nodes, leader)
        until("there is a snapshot of it all", lambda: (nodes.status(leader).get("snapshot") or {}).get("bytes", 0) >= size * MIB * 0.9, 600)
        wiped = 1 + leader % 3
        most, _ = nodes.bench(leader, 256, 5)
        half = next((clients for clients in (4, 8, 16, 32, 64) if nodes.bench(leader, clients, 3)[0] >= most / 2), 128)
        for clients in (half, 256):
            until("all is calm", lambda: not nodes.status(leader).get("sending_snapshots"), 600)
            time.sleep(10)
            calm, term = nodes.bench(leader, clients, 10), nodes.status(leader)["term"]
            nodes.end(wiped)
            shutil.rmtree(os.path.join(directory, str(wiped)))
            nodes.start(wiped)
            until("a snapshot is sent", lambda: (nodes.status(wiped).get("receiving_snapshot") or {}).get("done", 0) > 0, 600)
            taker = threading.Thread(target=lambda: take_snapshot(nodes, leader))
            taker.start()
            busy = nodes.bench(leader, clients, 10)
            coming = nodes.status(wiped).get("receiving_snapshot")
            assert nodes.status(leader)["term"] == term, "there was an election"
            taken = taker.is_alive()
            print(f"{clients} clients, {size} MiB of keys: {calm[0]:.0f} writes a second, 99 of 100 within {calm[1]:.1f} ms; while one snapshot was taken "
                  f"(still at the end: {taken}) and another sent (still: {bool(coming)}): {busy[0] / calm[0]:.2f} of that, within {busy[1]:.1f} ms", flush=True)
            taker.join()
            until("the other one has caught up", lambda: nodes.is_ready(wiped), 600)
    finally:
        nodes.end_all()


def large_install(program, directory, size=1024):
    """OV-3: a follower gets a snapshot of a gigabyte, and there is no election: how much memory that takes at both ends; and while it is restarted every 2 s."""
    nodes, writer = Nodes(program, directory, 3, ["--timeout", "60s"]), None
    try:
        leader = nodes.start_all()
        away = 1 + leader % 3
        nodes.end(away)
        fill(nodes, leader, size)
        # Overwritten in place, so that what it lacks is gone from the log.
        take_snapshot(nodes, leader)
        until("there is a snapshot of it all", lambda: (nodes.status(leader).get("snapshot") or {}).get("bytes", 0) >= size * MIB * 0.9, 600)
        for _ in range(3):
            fill(nodes, leader, 128)
            take_snapshot(nodes, leader)
        until("what the follower lacks is gone from the log", lambda: nodes.status(leader)["first_index"] > 10, 600)
        time.sleep(5)
        writer, term = Writer(nodes.client[leader]), nodes.status(leader)["term"]
        time.sleep(10)
        for restarts in (False, True):
            calm = 0 if restarts else writer.worst()
            if restarts:
                nodes.end(away)
                shutil.rmtree(os.path.join(directory, str(away)))
            before, most, began, count = nodes.memory(leader), {"leader": 0, "follower": 0}, time.time(), 0
            nodes.start(away)
            last = time.time()
            while True:
                status = nodes.status(away)
                coming = status.get("receiving_snapshot")
                if not restarts:
                    most["leader"] = max(most["leader"], nodes.memory(leader))
                    if coming and coming["done"] < coming["bytes"]:
                        most["follower"] = max(most["follower"], nodes.memory(away))
                behind = nodes.status(leader)["last_index"] - status.get("applied", 0)
                if nodes.is_ready(away) and behind == 0:
                    break
                # In the middle of it: once some has come, and not all.
                if restarts and time.time() - last >= 2 and coming and 0 < coming["done"] < coming["bytes"] * 0.95:
                    nodes.end(away)
                    nodes.start(away)
                    count, last = count + 1, time.time()
                assert time.time() - began < 600, f"not caught up in ten minutes: {status}"
                time.sleep(0.1)
            took = time.time() - began
            if restarts:
                print(f"{size} MiB to a wiped disk that is restarted every 2 s: caught up after {took:.0f} s and {count} restarts")
            else:
                assert nodes.status(leader)["term"] == term, "there was an election"
                print(f"while {size} MiB were sent there was no election; 99 of 100 writes of one client took {writer.worst():.1f} ms at most, and "
                      f"{calm:.1f} ms before")
                print(f"{size} MiB to a follower: caught up after {took:.0f} s; the leader took {most['leader'] - before:.0f} MiB more than "
                      f"before, the follower {most['follower']:.0f} MiB in all until it had the whole")
    finally:
        if writer:
            writer.over = True
        nodes.end_all()


def away_for_a_million(program, directory, store):
    """A follower that was away for a million entries and a compaction, under full load."""
    nodes = Nodes(program, directory, 3, ["--store", store])
    try:
        leader = nodes.start_all()
        away = 1 + leader % 3
        nodes.end(away)
        began = nodes.status(leader)["last_index"]
        while nodes.status(leader)["last_index"] - began < 1_000_000:
            nodes.load(leader, "-t", "set", "-n", "200000", "-r", "10000", "-d", "16", "-c", "256")
        assert nodes.status(leader)["first_index"] > began, "nothing was compacted"
        pid = os.fork()
        if pid == 0:
            nodes.load(leader, "-t", "set", "-n", "100000000", "-r", "10000", "-d", "16", "-c", "64")
            os._exit(0)
        try:
            began = time.time()
            nodes.start(away)
            lag = lambda: next((peer["lag"] for peer in nodes.status(leader)["peers"] if peer["id"] == away), None)
            until("it has caught up under load", lambda: nodes.status(away).get("ready") and (1 << 40 if lag() is None else lag()) < 5000, 600)
            print(f"{store}: a follower that was away for a million entries has caught up under load after {time.time() - began:.1f} s")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.system("pkill -9 -f redis-benchmark.*100000000")
    finally:
        nodes.end_all()


def main():
    program, directory, stores = sys.argv[1], sys.argv[2], sys.argv[3].split(",")

    def fresh():
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        return directory
    start_after_many_writes(program, fresh())
    for store in stores:
        away_for_a_million(program, fresh(), store)
    load_beside_snapshots(program, fresh())
    large_install(program, fresh())


main()
