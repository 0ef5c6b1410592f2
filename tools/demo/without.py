"""DEMO_WITHOUT=NAME: how each feature is taken out of the mesh's files before it starts. The
show must notice: t/mesh/demo.t."""

import re


def _yaml(mesh, name, pattern, to):
    if not mesh.edit(name, pattern, to):
        raise ValueError("%s.yaml has nothing like %s" % (name, pattern))


def _conf(heddle, pattern, to):
    text, n = re.subn(pattern, to, heddle.conf.read_text())
    if not n:
        raise ValueError("%s: nothing like %s" % (heddle.conf, pattern))
    heddle.conf.write_text(text)


FEATURES = {
    # nobody is forbidden anything
    "authz": lambda m: _yaml(m, "security", r"---\n(?:#[^\n]*\n)?apiVersion: [^\n]*\n"
                             r"kind: AuthorizationPolicy.*?(?=---\n|\Z)", ""),
    # plain text inside
    "mtls": lambda m: _yaml(m, "security", r"mode: STRICT", "mode: DISABLE"),
    "fault": lambda m: _yaml(m, "details", r"    fault:\n      \w+: [^\n]*\n", ""),
    "retry": lambda m: _yaml(m, "ratings", r"attempts: 3", "attempts: 0"),
    # one version, no weights
    "canary": lambda m: _yaml(m, "reviews", r"      weight: 90\n.*", ""),
    # one worker: its death costs everyone's connections
    "kill": lambda m: _conf(m.gateway, r"worker_processes\s+2", "worker_processes 1"),
}
