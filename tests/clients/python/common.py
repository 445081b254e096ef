"""What the Python clients share: the commands' arguments, lines and digests. ../README.md says what they mean."""

import os
import sys
import threading
import zlib


def decode(field):
    return None if field == "-" else bytes.fromhex(field[1:])


def digest(data):
    return "-" if data is None else f"{len(data)}:{zlib.crc32(data):08x}"


def records():
    """The records to write: partition, timestamp, key, value, headers."""
    for line in sys.stdin:
        partition, timestamp, key, value, *headers = line.split()
        pairs = [header.split("=") for header in headers]
        yield int(partition), int(timestamp), decode(key), decode(value), [(name, decode(data)) for name, data in pairs]


def show(topic, partition, offset, timestamp, key, value, headers):
    pairs = [f"{name}={digest(data)}" for name, data in headers or ()]
    print(topic, partition, offset, timestamp, digest(key), digest(value), *pairs)


def say(*words):
    print(*words, flush=True)


class Ends:
    """Where the partitions that are read end."""

    def __init__(self, ranges):
        self.ends = {partition: end for partition, (start, end) in ranges.items() if start < end}

    def passed(self, partition, offset):
        """Whether this record is one of those that were there when the reading began."""
        end = self.ends.get(partition)
        if end is None:
            return False
        if offset + 1 >= end:
            del self.ends[partition]
        return offset < end


class Owned:
    """The partitions of a member of a group: told what comes and goes, it says what it has."""

    def __init__(self):
        self.partitions = set()

    def add(self, partitions):
        self.partitions |= set(partitions)
        say("assigned", *sorted(self.partitions))

    def remove(self, partitions):
        self.partitions -= set(partitions)
        say("assigned", *sorted(self.partitions))


def told_to_leave():
    """Set when standard input ends."""
    leave = threading.Event()

    def wait():
        while os.read(0, 1024):
            pass
        leave.set()

    threading.Thread(target=wait, daemon=True).start()
    return leave


def main(write, read, group, errors):
    command, bootstrap, *arguments = sys.argv[1:]
    if command == "write":
        write(bootstrap, *arguments)
    elif command == "read":
        time, *topics = arguments
        read(bootstrap, None if time == "beginning" else int(time), topics)
    elif command in ("group", "assigned"):
        group(bootstrap, *arguments, *([True] if command == "assigned" else []))
    elif command == "errors":
        for name, code in zip(("unknown", "large"), errors(bootstrap, *arguments), strict=True):
            say(name, code)
    else:
        sys.exit(f"no such command: {command}")
