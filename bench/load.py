"""The load: h2load with an exact number of requests, every answer verified."""

import http.client
import os
import re
import ssl
import subprocess

from peers import ANSWER
from procs import LOAD_CORE, Failed, pin

# connections x requests in flight on each: 64 everywhere
SHAPES = {"h2": (8, 8)}
TLS = ("https", "h2")


def run(scenario, port, requests, log_path, while_running=None):
    """Sends <requests>; {rps, p50_us, p99_us}. Raises Failed unless each answer was a 200
    of the right length. <while_running> is called once in the middle."""
    connections, streams = SHAPES.get(scenario, (64, 1))
    argv = ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams),
            "-t", "1", "--log-file=" + log_path]
    if scenario != "h2":
        argv.append("--h1")
    if scenario in TLS:
        argv.append("--tls13-ciphers=TLS_AES_128_GCM_SHA256")
    argv.append("%s://127.0.0.1:%d/" % ("https" if scenario in TLS else "http", port))
    if os.path.exists(log_path):
        os.unlink(log_path)
    load = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, pin(LOAD_CORE)))
    try:
        if while_running:
            _wait_for_lines(load, log_path, requests // 2)
            while_running()
        out, _ = load.communicate(timeout=60 + requests / 500)
    except subprocess.TimeoutExpired:
        raise Failed("the load of %d requests did not end" % requests) from None
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    _verify(scenario, requests, out)
    with open(log_path) as log:
        times = sorted(int(line.rpartition("\t")[2]) for line in log)
    if len(times) != requests:
        raise Failed("%d times for %d requests" % (len(times), requests))
    return {"rps": float(re.search(r"finished in .*?, ([\d.]+) req/s", out).group(1)),
            "p50_us": times[requests // 2], "p99_us": times[requests * 99 // 100]}


def _wait_for_lines(load, path, lines):
    size = 22 * lines  # a line is at least "1700000000000000 200 99"
    while load.poll() is None:
        try:
            if os.path.getsize(path) >= size:
                return
        except FileNotFoundError:
            pass
        try:
            load.wait(0.01)
        except subprocess.TimeoutExpired:
            pass


def _verify(scenario, requests, out):
    good = re.search(r"status codes: (\d+) 2xx", out)
    data = re.search(r"\((\d+)\) data", out)
    if not good or not data:
        raise Failed("h2load said: " + out.strip()[-300:])
    if int(good.group(1)) != requests:
        raise Failed("%s of %d answers were 2xx" % (good.group(1), requests))
    if int(data.group(1)) != requests * len(ANSWER):
        raise Failed("%s bytes of bodies for %d requests" % (data.group(1), requests))
    if scenario in TLS and "TLS Protocol: TLSv1.3" not in out:
        raise Failed("not TLS 1.3")
    if scenario in TLS and "TLS_AES_128_GCM_SHA256" not in out:
        raise Failed("another cipher: " + str(re.findall("Cipher: .*", out)))
    if scenario == "h2" and "Application protocol: h2" not in out:
        raise Failed("not HTTP/2")


def check_answer(scenario, port):
    """One request by another client: the answer is the upstream's, byte for byte."""
    if scenario in TLS:
        context = ssl._create_unverified_context()
        if scenario == "h2":
            context.set_alpn_protocols(["http/1.1"])
        conn = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    else:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        conn.request("GET", "/")
        answer = conn.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed("no answer: %s" % error) from None
    finally:
        conn.close()
    if answer.status != 200 or body != ANSWER.encode():
        raise Failed("answered %d with %d bytes: %r" % (answer.status, len(body), body[:60]))
