"""Processes of a benchmark: started on one core, measured from /proc, ended by their id.

Only what this module started is ever signalled: each program leads a session of its own,
and is told to go if the benchmark itself dies.
"""

import ctypes
import glob
import os
import signal
import socket
import subprocess
import time

PROXY_CORE, LOAD_CORE = 0, 1
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class Failed(Exception):
    """A program did not do its part; the message is for the reader."""


def pin(core):
    cores = os.sched_getaffinity(0)
    return {core} if core in cores else cores


class Program:
    """A started program and its descendants."""

    def __init__(self, argv, out_path, core, env=None):
        self.argv, self.out_path = argv, out_path

        def prepare():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.sched_setaffinity(0, pin(core))

        with open(out_path, "ab") as out:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=prepare,
                start_new_session=True, env={**os.environ, **(env or {})})
        self.pid = self._popen.pid

    def wait_until_listening(self, address, deadline_s=20):
        deadline = time.monotonic() + deadline_s
        while True:
            if self._popen.poll() is not None:
                raise Failed("ended at once, status %d: %s" % (self._popen.returncode,
                                                               self.last_words()))
            try:
                socket.create_connection(address, timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed("does not listen on %s:%d: %s"
                                 % (*address, self.last_words())) from None
                time.sleep(0.02)

    def last_words(self):
        with open(self.out_path, errors="replace") as out:
            lines = [line.strip() for line in out if line.strip()]
        return " | ".join(lines[-3:]) or "said nothing"

    def pids(self):
        """Its process id and those of all its descendants that live."""
        children = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = stat_fields(int(name))
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(name))
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def alive(self):
        return self._popen.poll() is None

    def stop(self, signum=signal.SIGTERM, deadline_s=5):
        pids = [self.pid] if not self.alive() else self.pids()
        if self.alive():
            self._popen.send_signal(signum)
            try:
                self._popen.wait(deadline_s)
            except subprocess.TimeoutExpired:
                pass
        # The session's leader is not reaped before this, so the ids are still ours.
        for pid in pids:
            fields = stat_fields(pid)
            if fields and int(fields[3]) == self.pid:  # its session is the one we made
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self._popen.wait()


def stat_fields(pid):
    """/proc/PID/stat behind the name: state, ppid, pgrp, session...; [] if it is gone."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def run_us(pid):
    """Microseconds that the living threads of <pid> have run, exactly; 0: not known."""
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        try:
            with open(path) as file:
                total += int(file.read().split()[0])
        except (OSError, IndexError):
            pass
    return total / 1000


def cpu_us(programs):
    """(user, system) microseconds that <programs> used so far, all processes and threads.
    The kernel says exactly how long each has run, and splits that by what its ticks met."""
    user = system = 0
    for program in programs:
        for pid in program.pids():
            fields = stat_fields(pid)
            if fields:
                ticks = int(fields[11]) + int(fields[12])
                exact = run_us(pid) or ticks * TICK_US
                part = int(fields[11]) / ticks if ticks else 0
                user += exact * part
                system += exact * (1 - part)
    return user, system


def machine_us():
    """Microseconds that all cores spent on anything so far; nothing is known of steal."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) * TICK_US


def own_us():
    """Microseconds of this process and of its children that have ended (the load)."""
    return sum(os.times()[:4]) * 1e6


def pss_kb(programs):
    """Proportional set size in KB, all processes."""
    total = 0
    for program in programs:
        for pid in program.pids():
            try:
                with open("/proc/%d/smaps_rollup" % pid) as file:
                    for line in file:
                        if line.startswith("Pss:"):
                            total += int(line.split()[1])
            except OSError:
                pass
    return total


def connections_to(programs, port):
    """How many established TCP connections <programs> hold to <port>."""
    inodes = set()
    for program in programs:
        for pid in program.pids():
            try:
                for fd in os.listdir("/proc/%d/fd" % pid):
                    link = os.readlink("/proc/%d/fd/%s" % (pid, fd))
                    if link.startswith("socket:["):
                        inodes.add(link[8:-1])
            except OSError:
                pass
    count = 0
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] == "01" and fields[9] in inodes \
                    and int(fields[2].partition(":")[2], 16) == port:
                count += 1
    return count


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
