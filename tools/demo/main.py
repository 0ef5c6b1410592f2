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
    """What it does, and the command."""
    gateway, page = mesh.gateway.ip, mesh.sidecars["page"]
    shop = "curl -s -H 'Host: %s' " % HOST
    return (
        ("the page; its reviews by the canary's weights", shop + "%s:8080/" % gateway),
        ("this user's reviews are always v2's, with ratings",
         shop + "-H 'end-user: jason' %s:8080/" % gateway),
        ("ratings fails three times, and retries save it",
         shop + "-H 'end-user: jason' -H 'x-flaky: 3' \\\n      %s:8080/" % gateway),
        ("denied by shop/page-no-admin", shop + "-i %s:8080/admin" % gateway),
        ("as the page's program asks, by its sidecar",
         "curl -s -H 'Host: details:9080' %s:15001/details/1" % page.ip),
        ("what the page's sidecar has counted, and what it was told",
         "curl -s %s:15000/metrics | grep ^istio_requests_total" % page.ip),
        ("", "curl -s %s:15000/config_dump" % page.ip),
        ("change the weights: in force when you save",
         "${EDITOR:-vi} %s" % mesh.yaml("reviews")),
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
        term.say("  %d programs: control plane, gateway, %d sidecars, their services; "
                 "up in %.1f s" % (n, len(mesh.sidecars), time.monotonic() - started))
        Show(mesh).run()
        if not once:
            term.title("To try next (Ctrl-C ends it all and leaves nothing behind)")
            for what, command in curl_lines(mesh):
                if what:
                    term.say("    # " + what)
                term.say("    " + command)
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
