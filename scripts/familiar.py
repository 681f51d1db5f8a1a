"""What scripts/familiar does by redis-py and by itself. The arguments: the program, a directory for its nodes, and where the clients
for JavaScript are installed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import redis
from nodes import free_ports

PROGRAM, DIRECTORY, CLIENTS = sys.argv[1:]
# What may have been done or not is for the caller to find out; the rest is tried again.
NOT_DONE = ("CLUSTERDOWN", "LOADING", "BUSY")


class Cluster:
    """Three nodes."""

    def __init__(self):
        ports = free_ports(6)
        self.peers, self.clients = ports[:3], ports[3:]
        self.nodes = [None] * 3
        for index in range(3):
            self.start(index)
        members = [f"{index + 1}=127.0.0.1:{port}" for index, port in enumerate(self.peers)]
        form = [PROGRAM, "members", "init", "--to", f"127.0.0.1:{self.clients[0]}", *members]
        until("the cluster is formed", lambda: subprocess.run(form, check=False, capture_output=True).returncode == 0)

    def start(self, index):
        with open(os.path.join(DIRECTORY, f"log-{index + 1}"), "a", encoding="utf-8") as log:
            self.nodes[index] = subprocess.Popen(
                [PROGRAM, "serve", "--id", str(index + 1), "--data-dir", os.path.join(DIRECTORY, str(index + 1)),
                 "--peer-addr", f"127.0.0.1:{self.peers[index]}", "--client-addr", f"127.0.0.1:{self.clients[index]}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def leader(self):
        """The place of the leader."""
        while True:
            for port in self.clients:
                try:
                    status = connect(port).execute_command("CORACLE", "HEALTH")
                except redis.RedisError:
                    continue
                leader = json.loads(status)["leader"]
                if leader:
                    return leader - 1

    def kill(self, index):
        self.nodes[index].send_signal(signal.SIGKILL)
        self.nodes[index].wait()

    def end(self):
        for node in self.nodes:
            node.kill()
            node.wait()


def connect(port, protocol=3):
    """A client of one node."""
    return redis.Redis(port=port, protocol=protocol, decode_responses=True, socket_timeout=60)


def usual(cluster):
    """What programs do all day, in both dialects, at any node."""
    for protocol in (2, 3):
        client = connect(cluster.clients[protocol % 3], protocol)
        other = connect(cluster.clients[(protocol + 1) % 3], protocol)
        client.flushall()
        assert client.set("k", "v", ex=1000, nx=True) and client.set("k", "w", nx=True) is None
        assert client.set("k", "x", keepttl=True, get=True) == "v" and 990 < other.ttl("k") <= 1000
        assert client.persist("k") and other.ttl("k") == -1 and other.ttl("none") == -2
        assert client.incrbyfloat("f", 0.1) == 0.1 and client.incrbyfloat("f", 0.2) == 0.3
        assert client.hset("h", mapping={"a": "1", "b": "2"}) == 2 and other.hgetall("h") == {"a": "1", "b": "2"}
        assert client.hincrby("h", "a", 5) == 6 and other.hmget("h", "a", "c") == ["6", None]
        assert dict(client.hscan_iter("h")) == {"a": "6", "b": "2"} and set(other.hkeys("h")) == {"a", "b"}
        with client.pipeline(transaction=True) as pipe:
            answers = pipe.set("t", 1).incr("t").get("t").hgetall("h").execute()
        assert answers == [True, 2, "2", {"a": "6", "b": "2"}], answers
        with client.pipeline(transaction=False) as pipe:
            for number in range(500):
                pipe.set(f"many:{number}", number)
            assert all(pipe.execute())
        assert {key for key in other.scan_iter("many:*", count=50)} == {f"many:{number}" for number in range(500)}
        assert sorted(client.keys("many:49?")) == [f"many:{number}" for number in range(490, 500)]
        third = redis.Redis(port=cluster.clients[0], db=3, protocol=protocol, decode_responses=True)
        assert third.get("k") is None and client.copy("k", "k", destination_db=3) and third.get("k") == "x"
        assert third.dbsize() == 1 and client.info("keyspace")["db3"]["keys"] == 1
        assert client.rename("k", "l") and other.exists("k", "l") == 1 and client.type("h") == "hash"
        try:
            client.lpush("list", 1)
            raise AssertionError("lists are not served")
        except redis.ResponseError as error:
            assert "lists are not served" in str(error), error
        assert client.set("soon", 1, px=50)
        while other.exists("soon"):
            time.sleep(0.01)
    print("what programs do all day holds in both dialects")


def surely(call, again):
    """Calls until it is done, or told to be unknown."""
    while True:
        try:
            return call()
        except (redis.ConnectionError, redis.TimeoutError):
            again()
        except redis.ResponseError as error:
            if not str(error).startswith(NOT_DONE):
                raise
            time.sleep(0.01)


def at_once(workers):
    """Runs them at once; what one of them raises is raised."""
    problems = []

    def guarded(worker):
        try:
            worker()
        except BaseException as problem:  # pylint: disable=broad-except
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    return threads, problems


def join(threads, problems):
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def counting(cluster):
    """Optimistic locking: whatever was done is counted once."""
    done = [0] * 6
    unknown = [0] * 6

    def worker(place):
        client = connect(cluster.clients[place % 3])
        while done[place] < 40:
            with client.pipeline() as pipe:
                try:
                    pipe.watch("count")
                    value = int(pipe.get("count") or 0)
                    pipe.multi()
                    pipe.set("count", value + 1)
                    pipe.execute()
                    done[place] += 1
                except redis.WatchError:
                    pass
                except (redis.ConnectionError, redis.TimeoutError):
                    # What was under way when the node died may have been done.
                    unknown[place] += 1
                    client = connect(cluster.clients[(place + 1 + random.randrange(2)) % 3])
                    time.sleep(0.05)
                except redis.ResponseError as error:
                    if not str(error).startswith(NOT_DONE):
                        unknown[place] += 1

    threads, problems = at_once([lambda place=place: worker(place) for place in range(6)])
    while sum(done) < 60 and not problems:
        time.sleep(0.01)
    dead = cluster.leader()
    cluster.kill(dead)
    join(threads, problems)
    cluster.start(dead)
    count = int(surely(lambda: connect(cluster.clients[(dead + 1) % 3]).get("count"), lambda: None))
    assert sum(done) <= count <= sum(done) + sum(unknown), (done, unknown, count)
    print(f"{sum(done)} optimistic increments, {sum(unknown)} unknown through a leader's death, and the count is {count}")


def locking(cluster):
    """A lock by SET NX PX, released by DELEX IFEQ: nobody else is inside, through a leader's death."""
    inside, entered = [0], [0]

    def worker(place):
        client = [connect(cluster.clients[place % 3])]

        def again():
            client[0] = connect(cluster.clients[random.randrange(3)])
            time.sleep(0.05)

        for turn in range(12):
            token = f"{place}-{turn}"
            # Setting it again to what it is already is no second lock.
            take = lambda: client[0].set("lock", token, nx=True, px=60000) or client[0].get("lock") == token
            while not surely(take, again):
                time.sleep(0.002)
            inside[0] += 1
            assert inside[0] == 1, "two are inside"
            entered[0] += 1
            time.sleep(0.001)
            inside[0] -= 1
            release = lambda: client[0].execute_command("DELEX", "lock", "IFEQ", token)
            surely(release, again)

    threads, problems = at_once([lambda place=place: worker(place) for place in range(5)])
    while entered[0] < 15 and not problems:
        time.sleep(0.01)
    dead = cluster.leader()
    cluster.kill(dead)
    join(threads, problems)
    cluster.start(dead)
    print(f"{entered[0]} turns inside a lock, never two at a time, through a leader's death")


def limiting(cluster):
    """A rate limiter: of 200 requests in one window of a hundred none more passes."""
    passed = [0]
    guard = threading.Lock()

    def worker(place):
        client = connect(cluster.clients[place % 3])
        for _ in range(50):
            with client.pipeline(transaction=True) as pipe:
                count, _ = pipe.incr("window").expire("window", 600, nx=True).execute()
            if count <= 100:
                with guard:
                    passed[0] += 1

    join(*at_once([lambda place=place: worker(place) for place in range(4)]))
    assert passed[0] == 100, passed
    assert 500 < connect(cluster.clients[0]).ttl("window") <= 600
    print("a rate limiter lets as many pass as it says")


def in_javascript(cluster):
    """node-redis, ioredis and connect-redis at work through a leader's death: scripts/familiar.mjs."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "familiar.mjs")
    worker = subprocess.Popen(
        ["node", script, CLIENTS, *map(str, cluster.clients)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    for line in worker.stdout:
        if line.strip() == "half":
            dead = cluster.leader()
            cluster.kill(dead)
            cluster.start(dead)
        else:
            print(line, end="", flush=True)
    assert worker.wait() == 0, "the clients for JavaScript"


HAPROXY = """
defaults
  mode tcp
  timeout connect 2s
  timeout client 1m
  timeout server 1m
  timeout check 2s
frontend clients
  bind 127.0.0.1:{port}
  default_backend nodes
backend nodes
  option redispatch
  option tcp-check
  tcp-check connect
  tcp-check send PING\\r\\n
  tcp-check expect string +PONG
  tcp-check send info\\ replication\\r\\n
  tcp-check expect string role:master
  tcp-check send QUIT\\r\\n
  tcp-check expect string +OK
  default-server check inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
"""


def until(what, check):
    end = time.time() + 60
    while not check():
        assert time.time() < end, f"waited in vain until {what}"
        time.sleep(0.1)


def proxied(cluster):
    """HAProxy in front of all nodes, with the check that it documents for redis, through a death."""
    port = free_ports(1)[0]
    path = os.path.join(DIRECTORY, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as config:
        config.write(HAPROXY.format(port=port))
        for index, node in enumerate(cluster.clients):
            config.write(f"  server node{index + 1} 127.0.0.1:{node}\n")
    subprocess.run(["haproxy", "-c", "-q", "-f", path], check=True)
    with open(os.path.join(DIRECTORY, "haproxy.log"), "w", encoding="utf-8") as log:
        proxy = subprocess.Popen(["haproxy", "-db", "-f", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def works(value):
        try:
            with connect(port) as client:
                return client.set("proxied", value) and client.get("proxied") == value
        except redis.RedisError:
            return False
    try:
        until("HAProxy passes commands on", lambda: works("before"))
        dead = cluster.leader()
        cluster.kill(dead)
        until("HAProxy goes on without the dead node", lambda: works("after"))
        # Nobody is sent there any more.
        assert all(works(str(turn)) for turn in range(30))
        cluster.start(dead)
        until("all nodes serve again", lambda: all(ready(port) for port in cluster.clients))
        print("HAProxy sends nobody to a dead node")
    finally:
        proxy.kill()
        proxy.wait()


def ready(port):
    try:
        return json.loads(connect(port).execute_command("CORACLE", "HEALTH"))["ready"]
    except redis.RedisError:
        return False


def exported(cluster):
    """The exporter that people point at redis finds what it looks for."""
    port = free_ports(1)[0]
    connect(cluster.clients[0]).set("exported", "value", ex=1000)
    address = f"redis://127.0.0.1:{cluster.clients[0]}"
    exporter = subprocess.Popen(
        ["prometheus-redis-exporter", "-redis.addr", address, "-web.listen-address", f"127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    found = {}

    def scraped():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    name, _, value = line.rpartition(" ")
                    found[name] = value
        except OSError:
            return False
        return True
    try:
        until("the exporter answers", scraped)
        number = lambda name: float(found[name])
        assert number("redis_up") == 1, found.get("redis_up")
        assert number('redis_db_keys{db="db0"}') >= 1 and number('redis_db_keys_expiring{db="db0"}') >= 1
        for name in ("redis_memory_used_bytes", "redis_connected_clients", "redis_commands_processed_total", "redis_uptime_in_seconds"):
            assert number(name) > 0 or name == "redis_uptime_in_seconds", name
        assert any(name.startswith("redis_instance_info") and 'role="master"' in name for name in found)
        print("prometheus-redis-exporter finds what it looks for")
    finally:
        exporter.kill()
        exporter.wait()


def main():
    cluster = Cluster()
    try:
        usual(cluster)
        counting(cluster)
        locking(cluster)
        limiting(cluster)
        in_javascript(cluster)
        proxied(cluster)
        exported(cluster)
    finally:
        cluster.end()


main()
