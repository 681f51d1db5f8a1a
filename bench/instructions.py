"""Counts the instructions of a write, with Valgrind. See bench/run.

They are the same on a busy computer as on a quiet one, and nearly the same on another one with the same compiler. What a start costs is
in both runs of a pair, and so not in their difference.
"""

import platform
import re
import subprocess
import sys

# What a write of 256 bytes took on x86_64 when this was last looked at. Whoever makes something quicker lowers its number; whoever makes something
# slower on purpose says in docs/performance.md why.
KNOWN = {
    "core": 23_200,
    "core-at-once": 1_630,
    "nodes": 89_700,
    "nodes-at-once": 21_700,
    "machine": 3_710,
    "commands": 1_780,
}

# A tenth more is too many.
MOST = 1.10

WRITES = 1_000


def instructions(program, what, writes):
    ran = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, "bench", "--count", what, "--writes", str(writes)],
                         check=False, capture_output=True, text=True, timeout=600)
    counted = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode != 0 or counted is None:
        raise SystemExit(f"bench/run: valgrind cannot count {what}: {ran.stderr[-2000:]}")
    return int(counted.group(1))


def main():
    program, slower = sys.argv[1], []
    print("| a write of 256 bytes | instructions | of what is known |\n| --- | --- | --- |")
    for what, known in KNOWN.items():
        # From the second thousand on everything has its room.
        each = (instructions(program, what, 2 * WRITES) - instructions(program, what, WRITES)) / WRITES
        print(f"| {what} | {each:,.0f} | {each / known:.3f} |", flush=True)
        if each > MOST * known:
            slower.append(f"{what}: {each:,.0f} instructions where {known:,} were known")
    if platform.machine() != "x86_64":
        print("Not judged: what is known is of x86_64.")
    elif slower:
        raise SystemExit("*** FAILED: a write takes over a tenth more than it took: " + "; ".join(slower)
                         + ". Make it quicker, or say in docs/performance.md why and raise the number in bench/instructions.py")


main()
