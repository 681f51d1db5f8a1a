"""What a request costs as something grows. See bench/growth."""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import growth_beside
import growth_size
from turns import Machine, Trouble, computer

# In the order in which they are measured.
SERIES = {
    "values": growth_size.values,
    "clients": growth_size.clients,
    "nodes": growth_size.nodes,
    "sessions": growth_size.sessions,
    "log": growth_size.log,
    "keys": growth_size.keys,
    "catching-up": growth_beside.catching_up,
    "slow-disk": growth_beside.slow_disk,
    "tls": growth_beside.tls,
    "snapshots": growth_beside.snapshots,
}


class Bench:
    """What every series has to know, and the directory that it may use."""

    def __init__(self, wishes, directory):
        self.coracle, self.powercut, self.parent = wishes.coracle, wishes.powercut, directory
        self.rounds, self.seconds = wishes.rounds, wishes.seconds
        self.quick, self.long = wishes.quick, wishes.long
        self.directory = None

    def below(self, *names):
        return os.path.join(self.directory, *names)

    def run(self, name):
        """The lines of a series. Its data is gone afterwards."""
        self.directory, machine = tempfile.mkdtemp(prefix=f"{name}-", dir=self.parent), Machine()
        try:
            with contextlib.ExitStack() as stack:
                lines = SERIES[name](self, stack)
            return [f"### {name}", "", *lines, "", machine.told() + ".", ""]
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def wanted():
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="bench/growth", description="What a request costs as something grows.")
    parser.add_argument("coracle", help=argparse.SUPPRESS)
    parser.add_argument("powercut", help=argparse.SUPPRESS)
    parser.add_argument("--only", metavar="SERIES[,SERIES]", help="of " + ", ".join(SERIES) + " (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few seconds for each series: whether everything works, and no more")
    parser.add_argument("--long", action="store_true",
                        help="logs of ten million entries and ten million keys too: much longer, and some 10 GB of memory")
    parser.add_argument("--rounds", type=int, help="how often all points of a series take turns (default: 5, with --quick 1)")
    parser.add_argument("--seconds", type=int, help="how long a turn is measured (default: 3, with --quick 1)")
    parser.add_argument("--out", metavar="FILE", help="write the tables there too")
    wishes = parser.parse_args()
    wishes.rounds = (1 if wishes.quick else 5) if wishes.rounds is None else wishes.rounds
    wishes.seconds = (1 if wishes.quick else 3) if wishes.seconds is None else wishes.seconds
    wishes.only = wishes.only.split(",") if wishes.only else list(SERIES)
    unknown = [name for name in wishes.only if name not in SERIES]
    if unknown:
        parser.error(f"there is no series {', '.join(unknown)}: there are {', '.join(SERIES)}")
    if min(wishes.rounds, wishes.seconds) < 1:
        parser.error("--rounds and --seconds take numbers from 1 on")
    if wishes.quick and wishes.long:
        parser.error("--quick and --long exclude each other")
    if wishes.out:
        # Found out now, and not after forty minutes.
        try:
            with open(wishes.out, "a", encoding="utf-8"):
                pass
        except OSError as error:
            parser.error(f"--out: {error}")
    return wishes


def ended(number, _):
    """The signals to end are heard as an exception, so that everything is cleaned up; a second one changes nothing."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    wishes = wanted()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, ended)
    directory = tempfile.mkdtemp(prefix="coracle-growth-")
    sections, measured, failed = [], [], []
    try:
        bench = Bench(wishes, directory)
        sections += [f"{wishes.rounds} rounds of {wishes.seconds} s for each point, all points of a series by turns; "
                     f"{computer(directory)}. Medians, with the least and the greatest in brackets; ratios are to the "
                     "base of the same round.", ""]
        for name in wishes.only:
            try:
                sections += bench.run(name)
                measured.append(name)
            except (Trouble, OSError, AssertionError, LookupError, subprocess.SubprocessError, SystemExit) as trouble:
                # A signal ends all of it; what one series waits for in vain ends that series.
                if isinstance(trouble, SystemExit) and isinstance(trouble.code, int):
                    raise
                failed.append(name)
                sections += [f"### {name}", "", f"Not measured: {trouble or type(trouble).__name__}", ""]
                print(f"bench/growth: {name}: {trouble or type(trouble).__name__}", file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        text = "\n".join(sections)
        print(text)
        # A file of an earlier run is not given up for nothing.
        if wishes.out and measured:
            with open(wishes.out, "w", encoding="utf-8") as out:
                out.write(text)
    if failed:
        raise SystemExit(f"bench/growth: failed: {', '.join(failed)}; try again with --only {','.join(failed)}")


main()
