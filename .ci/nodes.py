"""Nodes and other programs that the checks beside this file start: on 127.0.0.1, read line by line with deadlines, ended by
their own process ids whatever happens."""

import json
import os
import queue
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

# Whatever a check waits for happens within this many seconds, or it failed.
DEADLINE = 30


class Failed(Exception):
    """What a check found, in a sentence."""


def built(name):
    """A program of this workspace: the one named on the command line, else cargo's debug build."""
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", name)


def free_ports(count):
    """Ports nobody has at this moment, below those the system hands out, or somebody else has them by then."""
    free = []
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                free.append(port)
            except OSError:
                continue
        if len(free) == count:
            return free
    raise Failed(f"there are no {count} free ports")


def wait_until(what, holds, within=DEADLINE):
    """Asks again and again; what `holds` returned once it was true."""
    ends = time.monotonic() + within
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() >= ends:
            raise Failed(f"not within {within} s: {what}")
        time.sleep(0.1)


class Program:
    """A child process. Killed when its `with` block ends; what it logged is in a file of the scratch directory."""

    def __init__(self, scratch, name, *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=None):
        self.name = name
        self.log = os.path.join(scratch, f"{name}.log")
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=log, env=env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-5:]).strip()

    def end(self):
        """By SIGTERM, in order."""
        self.child.terminate()
        try:
            code = self.child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end; {self.last_words()}") from None
        if code != 0:
            raise Failed(f"{self.name} ended with {code}; {self.last_words()}")


class Node(Program):
    """A running `perennial up --json`, which is ready."""

    def __init__(self, perennial, scratch, name, *args, env=None):
        self.control = os.path.join(scratch, f"{name}.sock")
        # Nothing of the settings of whoever runs the check.
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PERENNIAL_", "OTEL_", "IROH_"))}
        words = [perennial, "up", "--json", "--config", "/dev/null", "--control", self.control, *args]
        pipe = subprocess.PIPE
        super().__init__(scratch, name, *words, stdin=pipe, stdout=pipe, env=clean | (env or {}))
        self.events = queue.Queue(maxsize=65536)
        threading.Thread(target=self._read, daemon=True).start()
        self.ready = self.event("ready")

    def _read(self):
        for line in self.child.stdout:
            self.events.put((time.perf_counter(), json.loads(line)))
        self.events.put((time.perf_counter(), None))

    def event(self, name, **fields):
        """The next event of this name with these fields; others are skipped."""
        return self.heard(name, **fields)[1]

    def heard(self, name, **fields):
        """The same, and when it was read."""
        ends = time.monotonic() + DEADLINE
        while True:
            try:
                at, event = self.events.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name} told no {name} within {DEADLINE} s; {self.last_words()}") from None
            if event is None:
                raise Failed(f"{self.name} ended before its {name}; {self.last_words()}")
            if event["event"] == name and all(event.get(key) == value for key, value in fields.items()):
                return at, event

    def say(self, line):
        self.child.stdin.write(f"{line}\n".encode())
        self.child.stdin.flush()


def run(name, check):
    """Runs `check(scratch)` and tells how it came out: one sentence, and the exit code."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
        try:
            print(f"{name}: {check(scratch)}")
        except Failed as failed:
            sys.exit(f"{name}: {failed}")
