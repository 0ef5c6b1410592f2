"""The load: h2load with an exact number of requests, every answer verified."""

import http.client
import os
import re
import ssl
import subprocess

from peers import ANSWER, BODIES, IDENTITIES
from procs import LOAD_CORE, Failed, pin

# connections x requests in flight on each: 64 everywhere
SHAPES = {"h2": (8, 8), "pair8": (64 // IDENTITIES, 1)}
TLS = ("https", "h2")


def answer_of(scenario):
    """(path, text of the answer)"""
    path, kb = BODIES.get(scenario, ("/", 1))
    return path, ANSWER * kb


def requests_of(scenario, requests):
    """How many of it stand for <requests> of 1 KB: a 1 MB answer isn't sent so often."""
    return max(200, requests // 20) if scenario in BODIES else requests


def run(scenario, port, requests, log_path, while_running=None, rate=None):
    """Sends <requests>, as fast as they are answered or <rate> a second; {rps, p50_us,
    p99_us}. Raises Failed unless each answer was a 200 of the right length.
    <while_running> is called once in the middle."""
    if scenario == "pair8":
        if rate:
            raise Failed("pair8 has no load of a fixed rate")
        return _run_each(port, requests // IDENTITIES, log_path, while_running)
    load = _start(scenario, "127.0.0.1", port, requests, log_path, rate)
    try:
        if while_running:
            _wait_for_lines(load, log_path, requests // 2)
            while_running()
        times, seconds = _finish(load, scenario, requests, log_path)
    finally:
        _end(load)
    return _figures(times, seconds)


def _run_each(port, requests, log_path, while_running):
    """The same to each identity's listener at once, <requests> to each."""
    loads = [(_start("pair8", "127.0.0.%d" % (n + 1), port, requests, log_path + str(n)),
              log_path + str(n)) for n in range(IDENTITIES)]
    times, seconds = [], 0
    try:
        if while_running:
            _wait_for_lines(loads[0][0], loads[0][1], requests // 2)
            while_running()
        for load, log in loads:
            more, took = _finish(load, "pair8", requests, log)
            times += more
            seconds = max(seconds, took)
    finally:
        for load, _ in loads:
            _end(load)
    return _figures(sorted(times), seconds)


def _figures(times, seconds):
    return {"rps": len(times) / seconds, "p50_us": times[len(times) // 2],
            "p99_us": times[len(times) * 99 // 100]}


def _start(scenario, host, port, requests, log_path, rate=None):
    connections, streams = SHAPES.get(scenario, (64, 1))
    argv = ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams),
            "-t", "1", "--log-file=" + log_path]
    if rate:
        # Each connection has a clock of 10 ms of its own: those that began together would
        # send in bursts of all of them for ever. So they begin one a millisecond.
        argv += ["--rps=%.3f" % (rate / connections), "-r", "1", "--rate-period=1ms"]
    if scenario != "h2":
        argv.append("--h1")
    if scenario in TLS:
        argv.append("--tls13-ciphers=TLS_AES_128_GCM_SHA256")
    argv.append("%s://%s:%d%s" % ("https" if scenario in TLS else "http", host, port,
                                  answer_of(scenario)[0]))
    if os.path.exists(log_path):
        os.unlink(log_path)
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, pin(LOAD_CORE)))


def _end(load):
    if load.poll() is None:
        load.kill()
        load.wait()


def _finish(load, scenario, requests, log_path):
    """(times in us, sorted; seconds that it took)"""
    try:
        out, _ = load.communicate(timeout=60 + requests / 500)
    except subprocess.TimeoutExpired:
        raise Failed("the load of %d requests did not end" % requests) from None
    _verify(scenario, requests, out)
    with open(log_path) as log:
        times = sorted(int(line.rpartition("\t")[2]) for line in log)
    if len(times) != requests:
        raise Failed("%d times for %d requests" % (len(times), requests))
    rps = float(re.search(r"finished in .*?, ([\d.]+) req/s", out).group(1))
    return times, requests / rps


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
    if int(data.group(1)) != requests * len(answer_of(scenario)[1]):
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
        path, text = answer_of(scenario)
        conn.request("GET", path)
        answer = conn.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed("no answer: %s" % error) from None
    finally:
        conn.close()
    if answer.status != 200 or body != text.encode():
        raise Failed("answered %d with %d bytes: %r" % (answer.status, len(body), body[:60]))
