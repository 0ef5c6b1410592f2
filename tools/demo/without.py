"""DEMO_WITHOUT=NAME: how each feature is taken out of the mesh's files before it starts. The
show must notice: t/mesh/demo.t."""

import re
import shutil


def _yaml(mesh, name, pattern, to):
    if not mesh.edit(name, pattern, to):
        raise ValueError("%s.yaml has nothing like %s" % (name, pattern))


def _conf(heddle, pattern, to):
    text, n = re.subn(pattern, to, heddle.conf.read_text())
    if not n:
        raise ValueError("%s: nothing like %s" % (heddle.conf, pattern))
    heddle.conf.write_text(text)


def _no_module(mesh, name):
    """Runs a copy of the program beside which that module isn't there."""
    file = "hd_%s_module.so" % name
    modules = mesh.dir / "program" / "modules"
    modules.mkdir(parents=True)
    for so in (mesh.program.parent / "modules").glob("*.so"):
        if so.name != file:
            (modules / so.name).symlink_to(so)
    index = (mesh.program.parent / "modules" / "modules.index").read_text().splitlines()
    (modules / "modules.index").write_text(
        "".join(line + "\n" for line in index if not line.endswith(" " + file)))
    mesh.program = shutil.copy2(mesh.program, mesh.dir / "program" / "heddle")


FEATURES = {
    # nobody is forbidden anything
    "authz": lambda m: _yaml(m, "security", r"---\n(?:#[^\n]*\n)?apiVersion: [^\n]*\n"
                             r"kind: AuthorizationPolicy.*?(?=---\n|\Z)", ""),
    # plain text inside
    "mtls": lambda m: _yaml(m, "security", r"mode: STRICT", "mode: DISABLE"),
    "fault": lambda m: _yaml(m, "details", r"    fault:\n      \w+: [^\n]*\n", ""),
    "retry": lambda m: _yaml(m, "ratings", r"attempts: 3", "attempts: 0"),
    "metrics": lambda m: _no_module(m, "metrics"),
    # a policy that decides nothing
    "lua": lambda m: (m.gateway.dir / "conf" / "no_crawlers.lua").write_text("\n"),
    # one version, no weights
    "canary": lambda m: _yaml(m, "reviews", r"      weight: 90\n.*", ""),
    # one worker: its death costs everyone's connections
    "kill": lambda m: _conf(m.gateway, r"worker_processes\s+2", "worker_processes 1"),
}
