"""./demo's program, started by it when everything is built: main.py BUILD [--once]."""

import os
import signal
import sys
import time

import mesh as meshes
import term
from show import HOST, Show
from without import FEATURES


class Ended(BaseException):
    """A signal asks us to end."""


def on_signal(number, _):
    raise Ended(number)


def curl_lines(mesh):
    gateway, page = mesh.gateway.ip, mesh.sidecars["page"]
    return (
        "curl -s -H 'Host: %s' http://%s:8080/" % (HOST, gateway),
        "curl -s -H 'Host: %s' -H 'end-user: jason' http://%s:8080/" % (HOST, gateway),
        "curl -s -H 'Host: %s' -H 'x-flaky: 3' -H 'end-user: jason' http://%s:8080/"
        % (HOST, gateway),
        "curl -i -H 'Host: %s' http://%s:8080/admin" % (HOST, gateway),
        "curl -s -H 'Host: details:9080' http://%s:15001/details/1" % page.ip,
        "curl -s http://%s:15000/metrics | grep ^istio_requests_total" % page.ip,
        "curl -s http://%s:15000/config_dump" % page.ip,
        "$EDITOR %s" % mesh.yaml("reviews"),
    )


def wait_for_end(mesh):
    while True:
        time.sleep(1)
        for heddle in mesh.heddles:
            if heddle.process.poll() is not None:
                raise meshes.Failed("%s ended by itself:\n%s" % (heddle.name, heddle.log()))


def run(build, once, without):
    mesh = meshes.Mesh(build)
    try:
        mesh.prepare()
        if without:
            FEATURES[without](mesh)
        started = time.monotonic()
        term.title("Heddle: a bookshop in a mesh")
        n = mesh.start()
        term.say("  %d programs: control plane, gateway, %d sidecars and their services; "
                 "ready in %.1f s" % (n, len(mesh.sidecars), time.monotonic() - started))
        Show(mesh).run()
        if not once:
            term.title("To try next (Ctrl-C ends it all and leaves nothing behind)")
            for text in curl_lines(mesh):
                term.say("    " + text)
            wait_for_end(mesh)
    except Ended as end:
        term.say()
        return 0 if not once and not term.failures else 128 + end.args[0]
    except meshes.Failed as error:
        term.say("  " + str(error))
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end isn't to be interrupted
        mesh.stop()
    term.say()
    if term.failures:
        term.say("  %d of what was shown was not so." % len(term.failures))
    else:
        term.say("  All of it was so.")
    return 1 if term.failures else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    feature = os.environ.get("DEMO_WITHOUT", "")
    if feature and feature not in FEATURES:
        sys.exit("DEMO_WITHOUT: one of " + ", ".join(FEATURES))
    sys.exit(run(sys.argv[1], "--once" in sys.argv[2:], feature))
