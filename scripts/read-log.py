#!/usr/bin/env python3
"""Reads the write-ahead log of a node and its snapshots, from docs/disk-format.md alone and with nothing but Python.

scripts/read-log.py DIR prints, one JSON object a line, what `coracle log dump --json DIR` prints of the types
directory, hard_state, log, run, membership, snapshot, entry and end. It changes nothing, and expects that no server uses
the directory. The exit code is 0 for an intact log, 1 for a damaged one, 2 where nothing can be said.

scripts/read-log.py FILE reads a backup, which is a snapshot under another name, and prints its line.
"""

import json
import mmap
import os
import re
import struct
import sys

sys.dont_write_bytecode = True
from xxh3 import xxh3

BLOCK = 4096
HEADER = 64
MAX_BODY = 2 << 30
MAX_PAYLOAD = 32 << 20
ORIGIN, STATE, MEMBERSHIP, HARD_STATE, RESET, TRUNCATE, APPEND, PURGE, SUCCESSOR = range(1, 10)
KINDS = {1: "command", 2: "noop", 3: "membership", 4: "session", 5: "numbered", 6: "timer", 7: "ruling"}
LEVELS = {4: 1, 5: 1, 6: 2, 7: 3}
NEVER = 1 << 64


class Unreadable(Exception):
    """Nothing can be said: not ours, no permission, or a newer version."""


class Damaged(Exception):
    """What is wrong, with the file and the offset."""


class NotWhole(Exception):
    """A batch is not what was written."""


def table():
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        entries.append(byte)
    return entries


TABLE = table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def unpack(format, data, at=0):
    if at + struct.calcsize("<" + format) > len(data):
        raise NotWhole("a record reaches beyond its end")
    return struct.unpack_from("<" + format, data, at)


def sealed(data, magic):
    """The 64 bytes of a header, if magic and checksum hold."""
    return len(data) == HEADER and data[4:8] == magic and crc32c(data[4:]) == unpack("I", data)[0]


def read_identity(directory):
    path = os.path.join(directory, "identity")
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < HEADER or data[4:8] != b"CRID" or crc32c(data[4:]) != unpack("I", data)[0]:
        raise Damaged(f"{path} at offset 0: the checksum is wrong")
    version, flags, node, incarnation = unpack("IIQQ", data, 8)
    if version != 2 or flags & ~63:
        raise Unreadable(f"{path}: version {version}, flags {flags:#x}")
    least, boots, kept, differs, promise = unpack("QQIQI", data, 64)
    more = 8 + promise if flags & 8 else 24 + promise if flags & 16 else 0
    if len(data) != 96 + 8 * kept + more or kept > boots:
        raise Damaged(f"{path} at offset 80: {kept} boots do not fit")
    if flags & 9 == 9 or flags & 24 == 24:
        raise Damaged(f"{path} at offset 12: a promise to found a cluster, and more")
    free = (not flags & 4 and differs) or (not flags & 24 and promise) or (not flags & 2 and any(data[48:64]))
    if free:
        raise Unreadable(f"{path}: bytes that must be zero")
    cluster = int.from_bytes(data[32:48], "little") if flags & 1 else None
    store = data[48:64].rstrip(b"\0").decode("ascii") if flags & 2 else "wal"
    return {"node": node, "incarnation": incarnation, "cluster": cluster, "store": store, "least": least}


def hard_state(content):
    term, node, incarnation, flags, free, promised = unpack("QQQIIQ", content)
    if flags & ~1 or free:
        raise Unreadable(f"a hard state with flags {flags:#x} and {free:#x} after them")
    return (term, (node, incarnation) if flags & 1 else None, promised)


class Log:
    """The log as it is after some batches: a state, and the entries in the segments that were read."""

    def __init__(self, state=None):
        state = state or ((0, None, 0), (0, 0), (0, 0), [], [])
        self.hard_state, self.purged, self.last = state[:3]
        self.runs, self.memberships = list(state[3]), list(state[4])
        self.entries = {}

    def state(self):
        return (self.hard_state, self.purged, self.last, self.runs, self.memberships)

    def term(self, index):
        if index == self.purged[1]:
            return self.purged[0]
        return [term for first, term in self.runs if first <= index][-1]

    def reset(self, to):
        if to[1] < self.purged[1]:
            raise NotWhole("a reset below what was purged")
        self.purged = self.last = to
        self.runs, self.memberships, self.entries = [], [], {}

    def truncate(self, index):
        if index < self.purged[1]:
            raise NotWhole("a truncation below what was purged")
        if index >= self.last[1]:
            return
        for gone in range(index + 1, self.last[1] + 1):
            self.entries.pop(gone, None)
        self.last = (self.term(index), index)
        self.runs = [run for run in self.runs if run[0] <= index]
        self.memberships = [one for one in self.memberships if one[0][1] <= index]

    def append(self, entry):
        index, term = entry["index"], entry["term"]
        if index != self.last[1] + 1 or term < self.last[0]:
            raise NotWhole(f"entry {index} of term {term} does not follow {self.last}")
        if not self.runs or term != self.last[0]:
            self.runs.append((index, term))
        self.last = (term, index)
        self.entries[index] = entry
        if entry["kind"] == "membership":
            self.memberships.append(((term, index), entry["payload"]))

    def purge(self, upto):
        if upto[1] <= self.purged[1]:
            return
        if upto[1] > self.last[1] or self.term(upto[1]) != upto[0]:
            raise NotWhole("a purge of what is not there")
        for gone in range(self.purged[1] + 1, upto[1] + 1):
            self.entries.pop(gone, None)
        kept = upto[1] + 1
        if upto == self.last:
            self.runs = []
        else:
            self.runs = [(kept, self.term(kept))] + [run for run in self.runs if run[0] > kept]
        self.purged = upto
        old = [one for one in self.memberships if one[0][1] <= upto[1]]
        self.memberships = old[-1:] + self.memberships[len(old):]

    def replay(self, records):
        for kind, value in records:
            if kind == HARD_STATE:
                self.hard_state = value
            elif kind == RESET:
                self.reset(value)
            elif kind == TRUNCATE:
                self.truncate(value)
            elif kind == APPEND:
                for entry in value:
                    self.append(entry)
            elif kind == PURGE:
                self.purge(value)
            else:
                raise NotWhole("a record that only a checkpoint has")


class Segment:
    def __init__(self, directory, name):
        self.path = os.path.join(directory, name)
        self.name_number = int(name[:16], 16)
        with open(self.path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
        header = bytes(self.data[:HEADER])
        self.valid = sealed(header, b"CRWS")
        self.number = self.generation = self.first = self.synced = 0
        if self.valid:
            version, flags, self.number, self.generation, self.first, self.synced = unpack("IIQQQQ", header, 8)
            if version != 2 or flags or any(header[48:]):
                raise Unreadable(f"{self.path}: version {version}, flags {flags:#x}")

    def wrong(self, offset, detail):
        return f"{self.path} at offset {offset}: {detail}"

    def header(self, offset, any_generation=False):
        """The batch's header at this offset, if it is valid."""
        data = bytes(self.data[offset:offset + HEADER])
        if not sealed(data, b"CRWB"):
            return None
        names = ("checksum", "magic", "generation", "offset", "number", "synced", "previous", "sum", "body", "free")
        header = dict(zip(names, unpack("I4sQQQQIIQQ", data)))
        here = header["offset"] == offset and (any_generation or header["generation"] == self.generation)
        return header if here and header["body"] <= MAX_BODY else None

    def batch(self, offset):
        """The header and the records of the batch at this offset, or NotWhole."""
        header = self.header(offset)
        if header is None:
            raise NotWhole("the header of the batch is not whole")
        start = offset + HEADER
        if header["body"] > self.size - start:
            raise NotWhole("the file ends within the batch")
        body = self.data[start:start + header["body"]]
        return header, decode(header, body)

    def headers_after(self, offset, any_generation=False):
        found = (self.header(at, any_generation) for at in range(offset, self.size, BLOCK))
        return [header for header in found if header]


def decode(header, body):
    """First the sums, and then the meaning."""
    total = crc32c(struct.pack("<QQQ", header["generation"], header["offset"], header["number"]))
    records, at = [], 0
    while at < len(body):
        kind, flags, free, count, group, length = unpack("BBHIQQ", body, at)
        total = crc32c(body[at:at + 24], total)
        at += 24
        if length > len(body) - at:
            raise NotWhole("a record reaches beyond its batch")
        content = body[at:at + length]
        at += length
        entries = []
        if kind == APPEND:
            place = 0
            while place < length:
                payload = unpack("II", content, place)[1]
                end = place + 64 + payload
                if length - place < 64 or payload > MAX_PAYLOAD or end > length:
                    raise NotWhole("an entry reaches beyond its record")
                total = crc32c(content[place:place + 8], total)
                entries.append(content[place:end])
                place = end
        else:
            total = crc32c(content, total)
        records.append((kind, flags | free << 8, count, group, content, entries))
    if total != header["sum"]:
        raise NotWhole("the checksum of the batch's body is wrong")
    if header["free"]:
        raise Unreadable("a batch whose header uses bytes that must be zero")
    return [meaning(*record) for record in records]


def meaning(kind, flags, count, group, content, entries):
    if flags or group:
        raise Unreadable(f"a record of group {group} with flags {flags:#x}")
    if kind == ORIGIN:
        node, incarnation = unpack("QQ", content)
        cluster = int.from_bytes(content[16:32], "little")
        segment, generation, offset, batch, checksum, flags = unpack("QQQQII", content, 32)
        if flags & ~1:
            raise Unreadable(f"an origin with flags {flags:#x}")
        owner = (node, incarnation, cluster if flags & 1 else None)
        return kind, (owner, (segment, generation, offset, batch, checksum))
    if kind == STATE:
        purged, last = unpack("QQ", content, 40), unpack("QQ", content, 56)
        runs = [unpack("QQ", content, 72 + 16 * at) for at in range(count)]
        return kind, (hard_state(content), purged, last, runs)
    if kind == MEMBERSHIP:
        return kind, (unpack("QQ", content), content[16:])
    if kind == HARD_STATE:
        return kind, hard_state(content)
    if kind in (RESET, PURGE, SUCCESSOR):
        return kind, unpack("QQ", content)
    if kind == TRUNCATE:
        return kind, unpack("Q", content)[0]
    if kind == APPEND:
        return kind, [entry(data) for data in entries]
    raise Unreadable(f"a record of kind {kind}")


def entry(data):
    checksum, _, index, term, kind, flags, level, _, zero, cluster, wall, session, sequence = unpack(
        "IIQQBBHHHQQQQ", data)
    if crc32c(data[4:]) != checksum:
        raise NotWhole(f"the checksum of entry {index} is wrong")
    if kind not in KINDS or flags & ~1 or level != LEVELS.get(kind, 0) or zero:
        raise Unreadable(f"an entry of kind {kind} and level {level} with flags {flags:#x}")
    return {
        "index": index, "term": term, "kind": KINDS[kind], "cluster_time": cluster, "wall_time": wall,
        "session": session, "sequence": sequence, "payload": data[64:],
    }


class Checkpoint:
    """The first batch of a segment; NotWhole if it is not."""

    def __init__(self, segment):
        if not segment.valid:
            raise NotWhole("the segment's header is not whole")
        self.header, records = segment.batch(BLOCK)
        if [kind for kind, _ in records[:2]] != [ORIGIN, STATE] or self.header["number"] != segment.first:
            raise Damaged(segment.wrong(BLOCK, "the first batch is not this segment's checkpoint"))
        self.owner, self.follows = records[0][1]
        rest = 2
        while rest < len(records) and records[rest][0] == MEMBERSHIP:
            rest += 1
        self.state = records[1][1] + ([value for _, value in records[2:rest]],)
        self.repeats = records[rest:]


def end_after(segment, header):
    after = header["offset"] + -(-(HEADER + header["body"]) // BLOCK) * BLOCK
    return (segment.number, segment.generation, after, header["number"], header["checksum"])


def following(segment, end):
    """The batch at this end, if it is whole and follows."""
    header, records = segment.batch(end[2])
    if header["number"] != end[3] + 1 or header["previous"] != end[4]:
        raise NotWhole(f"batch {header['number']} does not follow batch {end[3]}")
    return header, records


def find_top(segments):
    """Step 1: the newest segment with a whole checkpoint, those below it, and what is attested above it."""
    attested = 0
    rest = list(segments)
    while rest:
        segment = rest.pop()
        try:
            return (segment, Checkpoint(segment)), rest, attested
        except NotWhole as wrong:
            start = 2 * BLOCK if segment.valid else BLOCK
            if segment.headers_after(start, not segment.valid):
                raise Damaged(segment.wrong(BLOCK if segment.valid else 0, wrong)) from None
            attested = max(attested, segment.synced)
    if attested:
        raise Damaged(f"batch {attested} was durable, but there is no whole segment")
    return None, [], 0


def find_chain(top, below, debts):
    """Step 2: the segments that count, ascending."""
    links = [top]
    while True:
        segment, checkpoint = links[-1]
        number, generation = checkpoint.follows[:2]
        upto = checkpoint.state[2][1]
        if number == 0:
            break
        if number >= segment.number:
            raise Damaged(segment.wrong(BLOCK, "the checkpoint follows a later segment"))
        fits = (s for s in below if s.name_number == number and (not s.valid or s.generation == generation))
        before = next(fits, None)
        if before is None:
            debts.append((upto, segment.wrong(BLOCK, f"the log begins late: segment {number} is gone")))
            break
        try:
            links.append((before, Checkpoint(before)))
        except NotWhole as wrong:
            debts.append((upto, before.wrong(BLOCK if before.valid else 0, wrong)))
            break
    return links[::-1]


def recover(segments, identity):
    """Steps 1 to 5: the log with what is in doubt, the end of what is attested, and whether the vote is."""
    debts = []
    top, below, attested = find_top(segments)
    if top is None:
        if identity["cluster"] is not None:
            raise Damaged("the node has joined a cluster, but its log is gone")
        if identity["least"]:
            raise Damaged(f"segment {identity['least']}, or a later one, is missing")
        return Log(), 0, False
    if top[0].number < identity["least"]:
        raise Damaged(f"segment {identity['least']}, or a later one, is missing or not whole")
    links = find_chain(top, below, debts)
    log, replayed, doubt = Log(), None, []
    for at, (segment, checkpoint) in enumerate(links):
        owner, follows = checkpoint.owner, checkpoint.follows
        mine = (identity["node"], identity["incarnation"])
        if owner[:2] != mine or owner[2] not in (None, identity["cluster"]):
            raise Damaged(segment.wrong(BLOCK, "the segment belongs to another directory"))
        if (checkpoint.header["number"], checkpoint.header["previous"]) != (follows[3] + 1, follows[4]):
            raise Damaged(segment.wrong(BLOCK, "the checkpoint does not follow the batch that it names"))
        if replayed != follows:
            log = Log(checkpoint.state)
        elif log.state() != checkpoint.state:
            raise Damaged(segment.wrong(BLOCK, "the checkpoint and the batches before it disagree"))
        end = end_after(segment, checkpoint.header)
        if at + 1 < len(links):
            # Step 3: below the top, everything was synced.
            after = links[at + 1][1]
            try:
                log.replay(checkpoint.repeats)
                while end != after.follows:
                    header, records = following(segment, end)
                    if end_after(segment, header)[2] > after.follows[2]:
                        raise NotWhole("the next segment begins elsewhere")
                    log.replay(records)
                    end = end_after(segment, header)
                replayed = end
            except NotWhole as wrong:
                replayed = None
                debts.append((after.state[2][1], segment.wrong(end[2], wrong)))
            continue
        # Step 4: the top, of which nothing after the attested batches is sure.
        attested = max(attested, checkpoint.header["synced"])
        doubt.append((checkpoint.header["number"], checkpoint.repeats))
        try:
            while True:
                header, records = following(segment, end)
                attested = max(attested, header["synced"])
                if records and records[0][0] == SUCCESSOR:
                    raise Damaged(f"segment {records[0][1][0]} is missing or not whole, but {segment.path} names it")
                doubt.append((header["number"], records))
                end = end_after(segment, header)
        except NotWhole as wrong:
            detail = str(wrong)
        attested = max([attested] + [header["synced"] for header in segment.headers_after(end[2])])
        if attested > end[3]:
            debts.append((NEVER, segment.wrong(end[2], detail)))
    sure = [records for number, records in doubt if number <= attested]
    unsure = [records for number, records in doubt if number > attested]
    try:
        for records in sure:
            log.replay(records)
        durable, boundary = log.hard_state, log.last[1]
        for records in unsure:
            log.replay(records)
            for kind, value in records:
                if kind in (RESET, TRUNCATE):
                    boundary = min(boundary, value[1] if kind == RESET else value)
    except NotWhole as wrong:
        raise Damaged(links[-1][0].wrong(BLOCK, wrong)) from None
    for upto, wrong in debts:
        if log.purged[1] < upto:
            raise Damaged(wrong)
    return log, max(boundary, log.purged[1]), log.hard_state != durable


def segments_of(directory):
    segments = []
    for name in sorted(os.listdir(directory)):
        if not re.fullmatch(r"[0-9a-f]{16}\.log", name):
            continue
        segment = Segment(directory, name)
        if segment.valid and segment.number > segment.name_number:
            continue  # A recycled file whose old name came back.
        if segment.valid and segment.number < segment.name_number:
            raise Damaged(segment.wrong(0, f"it says that it is segment {segment.number}"))
        segment.number = segment.name_number
        segments.append(segment)
    return segments


def read_snapshot(path):
    """What a snapshot says, all of it verified. Damaged if it is not whole."""
    with open(path, "rb") as file:
        data = file.read()

    def wrong(at, detail):
        return Damaged(f"{path} at offset {at}: {detail}")

    try:
        crc, magic, version, length, bits, index, term = unpack("I4sIIQQQ", data)
        if magic != b"CRSN" or not 120 <= length <= 152 + (68 << 20) + 28_000_004 + 32_772 or length > len(data):
            raise wrong(0, "it does not begin like a snapshot")
        if crc32c(data[4:length]) != crc:
            raise wrong(0, "the checksum of the header is wrong")
        if version not in (1, 2, 3, 4):
            raise Unreadable(f"{path}: version {version}")
        digest, time, machine, format, compared, compared_version = unpack("16sQIIQI", data, 40)
        own, of_index, of_term, members = unpack("16sQQI", data, 84)
        level, sessions, timers, rulings, effects, of_entries, length_of_all = 0, b"", b"", b"", b"", 0, 120 + members
        if version >= 2:
            level, size = unpack("II", data, length_of_all)
            sessions = data[length_of_all + 8:length_of_all + 8 + size]
            length_of_all += 8 + size
        if version >= 3:
            size, = unpack("I", data, length_of_all)
            timers = data[length_of_all + 4:length_of_all + 4 + size]
            of_entries, = unpack("I", data, length_of_all + 4 + size)
            length_of_all += 8 + size
        if version >= 4:
            size, = unpack("I", data, length_of_all)
            rulings = data[length_of_all + 4:length_of_all + 4 + size]
            length_of_all += 4 + size
            size, = unpack("I", data, length_of_all)
            effects = data[length_of_all + 4:length_of_all + 4 + size]
            length_of_all += 4 + size
        later = level > 1 or timers or of_entries > 1
        if version != (4 if rulings or effects else 3 if later else 1 + level) or level >> 16 or of_entries >> 16:
            raise wrong(120 + members, "the header cannot be true")
        if length_of_all != length or not 0 < index < 1 << 63 or of_index > index or machine >> 16:
            raise wrong(16, "the header cannot be true")
        at, chunks, content = length, 0, []
        while True:
            size, crc = unpack("II", data, at)
            if size == 0:
                break
            chunk = data[at + 8:at + 8 + size]
            if size > 1 << 20 or len(chunk) < size or crc32c(struct.pack("<QQ", bits, chunks) + chunk) != crc:
                raise wrong(at, "a chunk is not whole")
            content.append(chunk)
            at, chunks = at + 8 + size, chunks + 1
        content = b"".join(content)
        end = struct.pack("<QQQ", len(content), chunks, xxh3(content))
        if data[at + 8:] != end or crc32c(end) != crc:
            raise wrong(at, "the end does not fit what is before it")
    except NotWhole:
        raise wrong(len(data), "it ends in the middle") from None
    agreed = {"index": compared, "format": format, "version": compared_version, "digest": own.hex()}
    return {
        "file": os.path.basename(path), "index": index, "term": term, "bits": f"{bits:016x}", "bytes": len(data),
        "digest": digest.hex(), "cluster_time": time, "machine_version": machine, "compared": agreed if format else None,
        "membership": {"index": of_index, "term": of_term, "payload": data[120:120 + members].hex()},
        "level": level, "sessions": sessions.hex(), "timers": timers.hex(),
        "entries_version": of_entries, "rulings": rulings.hex(), "effects": effects.hex(),
    }


def snapshots_of(directory):
    """The whole snapshots, newest first."""
    found = []
    for name in os.listdir(directory):
        named = re.fullmatch(r"snapshot-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)", name)
        if not named:
            continue
        try:
            one = read_snapshot(os.path.join(directory, name))
        except Damaged:
            continue  # A start passes over it.
        if (one["index"], one["term"]) == (int(named[1]), int(named[2])):
            found.append(one)
    return sorted(found, key=lambda one: -one["index"])


def show(type, **fields):
    print(json.dumps({"type": type, **fields}, separators=(",", ":")))


def log_id(pair):
    return {"term": pair[0], "index": pair[1]}


def read(directory):
    names = os.listdir(directory)
    if "identity" not in names:
        if any(name.endswith(".log") for name in names):
            raise Damaged(f"{directory}/identity is missing, but there is a log")
        raise Unreadable(f"{directory} is no data directory")
    identity = read_identity(directory)
    if identity["store"] != "wal":
        raise Unreadable(f"{directory}: the store {identity['store']} keeps the log")
    log, boundary, vote_in_doubt = recover(segments_of(directory), identity)
    snapshots = snapshots_of(directory)
    reaches = snapshots[0]["index"] if snapshots else 0
    if log.purged[1] > reaches:
        raise Damaged(f"{directory}: the log begins after {log.purged[1]}, and no snapshot reaches it")
    cluster = identity["cluster"]
    show("directory", store="wal", node=identity["node"], incarnation=f"{identity['incarnation']:016x}",
         cluster=None if cluster is None else f"{cluster:032x}")
    term, vote, promised = log.hard_state
    vote = vote and {"node": vote[0], "incarnation": f"{vote[1]:016x}"}
    show("hard_state", term=term, vote=vote, promised_lease=promised, in_doubt=vote_in_doubt)
    show("log", purged=log_id(log.purged), last=log_id(log.last), attested=log_id((log.term(boundary), boundary)))
    for first, term in log.runs:
        show("run", first=first, term=term)
    for (term, index), payload in log.memberships:
        show("membership", index=index, term=term, payload=payload.hex())
    for one in snapshots:
        show("snapshot", **one)
    for index in range(log.purged[1] + 1, log.last[1] + 1):
        one = log.entries[index]
        payload = one.pop("payload")
        show("entry", **one, in_doubt=index > boundary, length=len(payload), payload=payload.hex())
    show("end", intact=True)


def main():
    if len(sys.argv) != 2:
        print("usage: read-log.py DIR | FILE", file=sys.stderr)
        return 2
    try:
        if os.path.isfile(sys.argv[1]):
            show("snapshot", **read_snapshot(sys.argv[1]))
        else:
            read(sys.argv[1])
    except Damaged as wrong:
        print(f"damaged: {wrong}", file=sys.stderr)
        return 1
    except (Unreadable, OSError) as problem:
        print(f"unreadable: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
