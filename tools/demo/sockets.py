"""Whose TCP connections are whose, by /proc."""

import os


def _inodes(pid):
    """Inodes of the sockets that process <pid> holds."""
    found = set()
    folder = "/proc/%d/fd" % pid
    for fd in os.listdir(folder):
        try:
            target = os.readlink("%s/%s" % (folder, fd))
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def client_ports(pid, address, port):
    """The clients' ports of the connections that <pid> has at <address>:<port>."""
    inodes = _inodes(pid)
    a, b, c, d = address.split(".")
    here = "%02X%02X%02X%02X:%04X" % (int(d), int(c), int(b), int(a), port)
    ports = set()
    with open("/proc/net/tcp") as table:
        for row in table:
            fields = row.split()
            if fields[1] == here and fields[9] in inodes and fields[3] == "01":
                ports.add(int(fields[2].split(":")[1], 16))
    return ports
