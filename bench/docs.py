"""Puts what was measured into a document, between two marks: docs.py DOCUMENT NAME < LINES."""

import sys


def marks(name):
    return f"<!-- {name}, by bench/run, from here -->", "<!-- until here -->"


def write_between(path, name, lines):
    """Puts the lines between the marks of this name, in the place of what was there."""
    begin, end = marks(name)
    with open(path, encoding="utf-8") as document:
        text = document.read()
    if text.count(begin) != 1 or end not in text.split(begin)[1]:
        raise SystemExit(f"bench/run: {path} has no place for them: a line {begin!r} and, after it, one {end!r}")
    before, rest = text.split(begin)
    with open(path, "w", encoding="utf-8") as document:
        document.write(before + begin + "\n\n" + "\n".join(lines).strip() + "\n\n" + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    write_between(sys.argv[1], sys.argv[2], sys.stdin.read().splitlines())
