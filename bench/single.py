"""What callgrind, syscalls and idle_memory have in common: one peer, one scenario."""

import argparse
import os
import shutil
import sys
import tempfile

import peers
import procs
from procs import Failed


def parse_arguments(doc, requests, tool, scenarios=tuple(peers.SCENARIOS)):
    parser = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=list(peers.PEERS), default="heddle")
    parser.add_argument("--scenario", choices=list(scenarios), default="h1")
    parser.add_argument("--requests", type=int, default=requests)
    parser.add_argument("--top", type=int, default=40, help="rows shown")
    args = parser.parse_args()
    for needed in (tool, "h2load", "openssl"):
        if not shutil.which(needed):
            parser.error("%s is missing" % needed)
    if not all(peers.PEERS[args.peer].has(i) for i in peers.SCENARIOS[args.scenario]):
        parser.error("%s has no configuration for %s" % (args.peer, args.scenario))
    return args


def measure(args, work, **deployment_options):
    """Starts the upstream and the peer, calls <work>(deployment, directory), ends all."""
    os.sched_setaffinity(0, procs.pin(procs.LOAD_CORE))
    directory = tempfile.mkdtemp(prefix="bench-")
    os.chmod(directory, 0o755)
    started = []
    try:
        pki = peers.make_pki(os.path.join(directory, "pki"))
        where = os.path.join(directory, "upstream")
        os.makedirs(where)
        upstream, port = peers.start_instance(peers.Nginx(), "upstream", where, pki, 9,
                                              procs.LOAD_CORE)
        started.append(upstream)
        upstream.wait_until_listening(("127.0.0.1", port))
        options = {key: value(directory) if callable(value) else value
                   for key, value in deployment_options.items()}
        deployment = peers.Deployment(peers.PEERS[args.peer], args.scenario, directory, pki,
                                      port, **options)
        started.append(deployment)
        work(deployment, directory)
    except Failed as error:
        sys.exit("%s: %s" % (args.peer, error))
    finally:
        for program in reversed(started):
            program.stop()
        shutil.rmtree(directory, ignore_errors=True)
