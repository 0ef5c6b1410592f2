"""The demo's mesh: a control plane, a gateway, a sidecar for each workload, and the programs
of the bookshop, all on loopback addresses and below one temporary directory.

Each heddle runs with one of the files in conf/, its addresses replaced; only node.json (who
it is) and its token are written here. Nothing outlives stop(): the processes are ours alone,
and the kernel ends them if this program is killed.
"""

import ctypes
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import client

TOP = pathlib.Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 10

# name: (service account, version, last byte of the address, whom it calls)
WORKLOADS = {
    "page": ("page", "v1", 1, ("details", "reviews")),
    "details": ("details", "v1", 2, ()),
    "reviews-v1": ("reviews", "v1", 11, ()),
    "reviews-v2": ("reviews", "v2", 12, ("ratings",)),
    "reviews-v3": ("reviews", "v3", 13, ("ratings",)),
    "ratings": ("ratings", "v1", 21, ()),
}
GATEWAY, CONTROL = 40, 50
PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class Failed(Exception):
    """The mesh can't be had; the message says why."""


class Heddle:
    """One heddle: its directory and its master."""

    def __init__(self, mesh, name, conf, replaced):
        self.mesh, self.name = mesh, name
        self.dir = mesh.dir / name
        for folder in ("conf", "logs"):
            (self.dir / folder).mkdir(parents=True)
        text = mesh.localised((TOP / "conf" / conf).read_text())
        for old, new in replaced.items():
            text = text.replace(old, new)
        self.conf = self.dir / "conf" / "heddle.conf"
        self.conf.write_text(text)
        self.process = None

    def start(self):
        self.process = self.mesh.spawn([
            str(self.mesh.program), "-p", str(self.dir) + "/", "-c", "conf/heddle.conf",
            "-e", "logs/error.log", "-g", "daemon off;"], self.dir / "logs" / "output")

    def log(self):
        text = ""
        for file in ("output", "error.log"):
            path = self.dir / "logs" / file
            text += path.read_text(errors="replace") if path.exists() else ""
        return text

    def access_log(self):
        path = self.dir / "logs" / "access.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def workers(self):
        """Pids of its workers, by the titles that heddle gives its processes."""
        pid = self.process.pid
        children = pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text()
        found = []
        for child in map(int, children.split()):
            try:
                title = pathlib.Path("/proc/%d/cmdline" % child).read_bytes()
            except OSError:
                continue  # it has just ended
            if b"worker" in title:
                found.append(child)
        return found


class Proxy(Heddle):
    """A sidecar or a gateway."""

    def __init__(self, mesh, name, kind, account, byte, metadata, replaced=None):
        self.ip = mesh.address(20, byte)
        conf = "gateway.conf" if kind == "router" else "sidecar.conf"
        super().__init__(mesh, name, conf,
                         {mesh.address(20, 1) + ":15000": self.ip + ":15000",
                          **(replaced or {})})
        node = {
            "id": "%s~%s~%s.shop~shop.svc.cluster.local" % (kind, self.ip, name),
            "cluster": account + ".shop",
            "metadata": {"NAMESPACE": "shop", "SERVICE_ACCOUNT": account, "NAME": name,
                         "INSTANCE_IPS": self.ip, "CLUSTER_ID": "Kubernetes",
                         "WORKLOAD_NAME": name, **metadata},
        }
        (self.dir / "conf" / "node.json").write_text(json.dumps(node, indent=1) + "\n")
        token = self.dir / "conf" / "token"
        mesh.write_secret(token, mesh.token_for(account))

    def admin(self, path):
        return client.get(self.ip, 15000, path, self.ip)

    def is_ready(self):
        try:
            return self.admin("/ready").status == 200
        except client.NO_ANSWER:
            return False


class Mesh:
    def __init__(self, build):
        self.program = (TOP / build / "heddle").resolve()
        self._lock = None
        self._tokens = {}
        self.programs, self.heddles = {}, []
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="heddle-demo-"))
        self.dir.chmod(0o755)  # workers are another user when we are root
        self.take_addresses()

    # --- addresses ---

    def take_addresses(self):
        """127.0.20-22.x and 127.30.20.x, or the same a few thousand further on if another
        demo runs: who listens on the lock's port has them."""
        for self.octet in range(250):
            lock = socket.socket()
            try:
                lock.bind((self.address(20, 254), 15999))
                lock.listen(1)
            except OSError:
                lock.close()
                continue
            self._lock = lock
            return
        raise Failed("no free loopback addresses: 127.0.20.254:15999 and on are taken")

    def address(self, third, byte):
        return "127.%d.%d.%d" % (self.octet, third, byte)

    def localised(self, text):
        if self.octet == 0:
            return text
        text = re.sub(r"\b127\.30\.20\.", "127.%d.30." % self.octet, text)
        return re.sub(r"\b127\.0\.(2[012])\.", r"127.%d.\1." % self.octet, text)

    # --- files ---

    def write_secret(self, path, text):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as f:
            f.write(text + "\n")
        self.give(path)

    def give(self, path):
        """To the user that heddle's processes become when the master is root."""
        if os.geteuid() == 0:
            shutil.chown(path, "nobody")

    def has_lua(self):
        """A build without LuaJIT has no such module."""
        return (self.program.parent / "modules" / "hd_lua_module.so").exists()

    def token_for(self, account):
        return self._tokens.setdefault(account, secrets.token_hex(16))

    def yaml(self, name):
        return self.dir / "control" / "mesh" / (name + ".yaml")

    def edit(self, name, pattern, to, count=0):
        """Replaces in one YAML file, as an editor does: a new file takes the old one's name."""
        path = self.yaml(name)
        text, n = re.subn(pattern, to, path.read_text(), count=count, flags=re.S)
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(path)
        return n

    # --- processes ---

    def spawn(self, argv, output=subprocess.PIPE, end=signal.SIGTERM):
        def in_child():
            _prctl(PR_SET_PDEATHSIG, end)
            os.setpgid(0, 0)  # Ctrl-C is for us alone: we end them in order

        if output is not subprocess.PIPE:
            output = open(output, "ab")
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT, preexec_fn=in_child)
        if output is not subprocess.PIPE and output != subprocess.PIPE:
            output.close()
        self._all.append(process)
        return process

    _all = []

    def bookshop(self, name, account, version, byte, calls):
        argv = [str(TOP / "examples/bookshop/bookshop.py"), account, "--version", version,
                "--listen", "%s:9080" % self.address(21, byte)]
        for callee in calls:
            argv += ["--upstream", "%s=%s:15001" % (callee, self.address(20, byte))]
        self.programs[name] = self.spawn(["python3", "-B"] + argv)

    def prepare(self):
        """All files, nothing started."""
        self.control = Heddle(self, "control", "control.conf", {})
        mesh_dir = self.dir / "control" / "mesh"
        mesh_dir.mkdir()
        for path in (TOP / "examples/mesh").glob("*.yaml"):
            (mesh_dir / path.name).write_text(self.localised(path.read_text()))
        (self.dir / "control" / "ca").mkdir(mode=0o700)
        self.give(self.dir / "control" / "ca")
        self.gateway = Proxy(self, "gateway", "router", "gateway", GATEWAY, {
            "LABELS": {"app": "gateway", "istio": "ingressgateway"},
            "INTERCEPTION_MODE": "NONE"})  # its listeners are on its own address
        if self.has_lua():
            conf = self.gateway.dir / "conf"
            (conf / "front.conf").write_text(
                self.localised((TOP / "examples/lua_policy/front.conf").read_text()))
            shutil.copy(TOP / "examples/lua_policy/no_crawlers.lua", conf)
        self.sidecars = {}
        for name, (account, version, byte, _) in WORKLOADS.items():
            self.sidecars[name] = Proxy(self, name, "sidecar", account, byte, {
                "LABELS": {"app": account, "version": version},
                "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15001",
                "APP_ADDRESS": self.address(21, byte)})
        self.heddles = [self.control, self.gateway, *self.sidecars.values()]
        self.write_secret(self.dir / "control" / "tokens", "\n".join(
            "%s shop %s" % (token, account) for account, token in self._tokens.items()))

    def start(self):
        for name, (account, version, byte, calls) in WORKLOADS.items():
            self.bookshop(name, account, version, byte, calls)
        for heddle in self.heddles:
            heddle.start()
        self._wait_programs()
        self._wait_proxies()
        return len(self._all)

    def _wait_programs(self):
        deadline = time.monotonic() + START_DEADLINE_S
        for name, process in self.programs.items():
            left = max(0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                raise Failed("%s of the bookshop says nothing" % name)
            said = process.stdout.readline().decode()
            if "listens on" not in said:
                raise Failed("%s of the bookshop: %s" % (name, said.strip()))

    def _wait_proxies(self):
        """Polls: a proxy is ready when it has all its configuration and its certificate."""
        deadline = time.monotonic() + START_DEADLINE_S
        waiting = [self.gateway, *self.sidecars.values()]
        while waiting:
            for heddle in self.heddles:
                if heddle.process.poll() is not None:
                    raise Failed("%s ended by itself:\n%s" % (heddle.name, heddle.log()))
            waiting = [proxy for proxy in waiting if not proxy.is_ready()]
            if waiting and time.monotonic() > deadline:
                raise Failed("%s isn't ready:\n%s" % (waiting[0].name, waiting[0].log()))
            if waiting:
                time.sleep(0.02)

    def stop(self):
        """Ends everything, in the end by force, and removes the directory."""
        for process in self._all:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_DEADLINE_S
        for process in self._all:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # Its group are its children, too.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if os.environ.get("DEMO_KEEP"):
            print("kept:", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
