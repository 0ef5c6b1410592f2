"""The show: what a mesh does, step by step. Each line printed is taken from an answer, a log
or a metric of this run; each check that fails makes the demo fail."""

import os
import re
import signal
import time

import client
import prom
import sockets
from load import Load
from term import ARROW, bold, check, dim, line, progress, step

HOST = "shop.example"
LOG_DEADLINE_S = 10


class Show:
    def __init__(self, mesh):
        self.mesh = mesh
        self.gateway = (mesh.gateway.ip, 8080)
        self.asked = {}         # status: answers that we got from the gateway
        self.reviews = {}       # version: how many answers we saw it in
        self.worker_lost = 0    # requests that died with a worker

    def run(self):
        for part in (self.identities, self.canary, self.authorization, self.faults,
                     self.retry, self.lua, self.worker_death, self.metrics):
            try:
                part()
            except client.NO_ANSWER as error:
                check(False, "an answer came", "%s: %s" % (type(error).__name__, error))

    # --- asking ---

    def get(self, path, **headers):
        answer = client.get(*self.gateway, path, HOST, **headers)
        self.tally([answer])
        return answer

    def tally(self, answers):
        for answer in answers:
            self.asked[answer.status] = self.asked.get(answer.status, 0) + 1
            version = answer.call("reviews").get("answer", {}).get("version")
            if version:
                self.reviews[version] = self.reviews.get(version, 0) + 1

    def log_line(self, heddle, *words):
        """The access log's line that holds all <words>; it is written after the answer."""
        deadline = time.monotonic() + LOG_DEADLINE_S
        while True:
            for text in heddle.log().splitlines():
                if all(word in text for word in words):
                    return text
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.01)

    def refused_by(self, heddle, answer, request):
        if answer.status != 403:
            return "not refused"
        return policy_of(self.log_line(heddle, request, " 403 "))

    # --- the steps ---

    def identities(self):
        step("Who called whom, with which identity")
        answer = self.get("/", end_user="jason")
        check(answer.status == 200, "GET / of the gateway: %d, %d services answered"
              % (answer.status, len(answer.json.get("chain", []))), answer.text[:200])
        for caller, path in (("gateway", []), ("page", ["details"]), ("page", ["reviews"]),
                             ("reviews", ["reviews", "ratings"])):
            here = answer.json if not path else answer.call(*path).get("answer", {})
            called = here.get("service", (path or ["page"])[-1])
            identity, issued_to = read_xfcc(here)
            wanted = "spiffe://cluster.local/ns/shop/sa/" + caller
            check(identity == wanted and issued_to.endswith("/sa/" + called),
                  "%-8s %s %-11s %s" % (caller, ARROW, "%s-%s" % (
                      called, here.get("version", "?")), identity),
                  "%s wanted, as %s received it" % (wanted, called))
        details = self.mesh.sidecars["details"]
        try:
            said = "answers %d" % client.get(details.ip, 9080, "/details/1",
                                            "details:9080").status
            refused = False
        except client.NO_ANSWER as error:
            said, refused = "hangs up: " + type(error).__name__, True
        check(refused, "without a certificate: details' sidecar %s" % said)

    def canary(self):
        step("A canary: 90/10 becomes 10/90 while requests flow")
        load = Load(6, *self.gateway, "/", HOST)
        load.start()
        try:
            load.wait_for(lambda: load.count() >= 300)
            edited_at = time.monotonic()
            edits = self.mesh.edit("reviews", r"weight: (90|10)\b",
                                   lambda m: "weight: %d" % (100 - int(m[1])))
            in_force_at = self._wait_until_mostly(load, "v3", edited_at)
            load.wait_for(lambda: load.count(in_force_at) >= 300)
        finally:
            load.stop()
        before, after = load.since(0, edited_at), load.since(in_force_at)
        everything = load.since()
        self.tally(everything)
        shares = [share(answers, "v3") for answers in (before, after)]
        line("before the edit", "v3 has %4.1f %% of %d requests"
             % (shares[0] * 100, len(before)))
        line("edited", "%s, %d weights" % (self.mesh.yaml("reviews").name, edits))
        line("after", "v3 has %4.1f %% of %d requests" % (shares[1] * 100, len(after)))
        check(shares[0] < 0.3 < 0.7 < shares[1], "the shares follow the weights")
        failed = [a for a in everything if a.status != 200]
        check(not failed and load.lost_n() == 0 and len(everything) >= 600,
              "%d requests meanwhile, %d failed, %d lost"
              % (len(everything), len(failed), load.lost_n()))

    @staticmethod
    def _wait_until_mostly(load, version, since):
        """When <version> had most of the last 20 answers; now if it never had."""
        def is_so():
            recent = load.since(since)[-1:] and sorted(
                ((when, a) for answers in load.answers for when, a in list(answers)
                 if when >= since), key=lambda pair: pair[0])[-20:]
            return len(recent) == 20 and share([a for _, a in recent], version) >= 0.6
        load.wait_for(is_so, timeout_s=15)
        return time.monotonic()

    def authorization(self):
        step("What authorization refused, and which policy did")
        page, details = self.mesh.sidecars["page"], self.mesh.sidecars["details"]
        reviews = self.mesh.sidecars["reviews-v1"]

        answer = self.get("/admin")
        found = self.refused_by(page, answer, "GET /admin")
        check(answer.status == 403 and "page-no-admin" in found,
              "gateway %s page /admin      %d  %s" % (ARROW, answer.status, found))

        # The reviews' workload asks what only the page may ask, by its own sidecar.
        answer = client.get(reviews.ip, 15001, "/details/1", "details:9080")
        found = self.refused_by(details, answer, "GET /details/1")
        check(answer.status == 403 and found == "none",
              "reviews %s details/1        %d  %s"
              % (ARROW, answer.status, "no policy allows it" if found == "none" else found))
        answer = client.get(page.ip, 15001, "/details/1", "details:9080")
        check(answer.status == 200, "page %s details/1           %d  details-viewer allows it"
              % (ARROW, answer.status))

    def faults(self):
        step("Injected: a delay and an abort")
        plain = self.get("/")
        patient = self.get("/", end_user="patient")
        ms = patient.call("details").get("ms", 0)
        line("details, for anyone", "%6.1f ms" % plain.call("details").get("ms", 0))
        check(patient.status == 200 and ms >= 700,
              "details, for end-user: patient %6.1f ms  (700 ms injected)" % ms,
              patient.status)
        unlucky = self.get("/", end_user="unlucky")
        call = unlucky.call("details")
        check(unlucky.status == 502 and call.get("status") == 500 and
              call.get("body") == "fault filter abort",
              "details, for end-user: unlucky %s \"%s\", the page says %d"
              % (call.get("status"), call.get("body"), unlucky.status))

    def retry(self):
        step("A retry that saved a request")
        answer = self.get("/", end_user="jason", x_flaky="2")
        ratings = answer.call("reviews", "ratings").get("answer", {})
        check(answer.status == 200 and ratings.get("try") == 3,
              "ratings fails twice; the page is served: %d, ratings answered try %s"
              % (answer.status, ratings.get("try")), answer.json.get("error"))
        asked_as = ratings.get("received", {}).get("x-request-id", "none")
        sidecar = self.mesh.sidecars["ratings"]
        self.log_line(sidecar, asked_as, " 200 ")
        statuses = [status_of(text) for text in sidecar.log().splitlines()
                    if asked_as in text]
        check(statuses == ["503", "503", "200"],
              "ratings' access log of that request: %s" % ", ".join(statuses))

    def lua(self):
        if not self.mesh.has_lua():
            return
        step("A Lua policy's decision, at the gateway's other door")
        door = (self.mesh.gateway.ip, 8081)
        crawler = client.get(*door, "/?book=1", HOST, user_agent="SomeBot/1.0")
        self.tally([crawler] if crawler.json else [])  # it should not have got so far
        check(crawler.status == 403 and crawler.text.startswith("no crawlers"),
              "user-agent: SomeBot/1.0 asks for a book: %d \"%s\""
              % (crawler.status, crawler.text.strip()[:40]))
        reader = client.get(*door, "/?book=1", HOST, user_agent="Reader/1.0")
        self.tally([reader] if reader.status == 200 else [])
        check(reader.status == 200 and reader.json.get("book") == "1",
              "user-agent: Reader/1.0  asks for a book: %d" % reader.status)

    def worker_death(self):
        step("A worker of the gateway is killed under load")
        workers = self.mesh.gateway.workers()
        load = Load(24, *self.gateway, "/", HOST)
        load.start()
        try:
            load.wait_for(lambda: all(len(a) >= 2 for a in load.answers))
            ours = {c.local_port: i for i, c in enumerate(load.clients)}
            owned = {pid: {ours[p] for p in sockets.client_ports(pid, *self.gateway)
                           if p in ours} for pid in workers}
            victim = min((pid for pid in workers if owned[pid]),
                         key=lambda pid: len(owned[pid]), default=workers[0])
            others = set(range(len(load.clients))) - owned[victim]
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            load.wait_for(lambda: all(sum(when > killed_at for when, _ in list(a)) >= 10
                                      for a in load.answers))
        finally:
            load.stop()
        self.tally(load.since())
        lost = {i for i, errors in enumerate(load.lost) if errors}
        self.worker_lost = load.lost_n()
        now = self.mesh.gateway.workers()
        line("workers before", ", ".join("%d (%d connections)" % (pid, len(owned[pid]))
                                         for pid in workers))
        line("killed", "%d; workers now %s" % (victim, ", ".join(map(str, now))))
        check(lost == owned[victim] and all(len(e) <= 1 for e in load.lost),
              "lost: %d connections, all of them the dead worker's" % len(lost),
              "%d were its own, %d lost" % (len(owned[victim]), load.lost_n()))
        failed = [a.status for a in load.since() if a.status != 200]
        check(others and not others & lost and not failed,
              "the other %d connections: %d answers, none failed"
              % (len(others), sum(len(load.answers[i]) for i in others)), failed[:5])
        check(victim not in now and len(now) == len(workers) and
              all(len(load.answers[i]) >= 10 for i in lost),
              "a new worker serves in its place")

    def metrics(self):
        step("The metrics that prove it: istio_requests_total of /metrics")
        self.metrics_until = time.monotonic() + LOG_DEADLINE_S
        sidecars = self.mesh.sidecars
        self.counted(self.mesh.gateway, "gateway, all answered", sum(self.asked.values()),
                     reporter="source")
        for status in sorted(self.asked):
            self.counted(self.mesh.gateway, "  of them %d" % status, self.asked[status],
                         reporter="source", response_code=str(status))
        self.counted(sidecars["page"], "page, refused", 1, reporter="destination",
                     response_code="403", connection_security_policy="mutual_tls",
                     source_principal="spiffe://cluster.local/ns/shop/sa/gateway")
        for version in sorted(self.reviews):
            # What the dead worker had asked for was answered, only nobody was there any more.
            self.counted(sidecars["page"], "page, served by reviews-" + version,
                         self.reviews[version], self.worker_lost, reporter="source",
                         response_code="200", destination_workload="reviews-" + version)
        self.counted(sidecars["page"], "page, delayed (flag DI)", 1, response_flags="DI")
        self.counted(sidecars["page"], "page, aborted (flag FI)", 1, response_flags="FI")
        self.counted(sidecars["ratings"], "ratings, tries that got 503", 2,
                     reporter="destination", response_code="503")
        self.counted(sidecars["reviews-v2"], "reviews-v2, 503 after retries", 0,
                     reporter="source", response_code="503")

    def counted(self, proxy, what, n, more=0, **labels):
        """A request is counted after its answer: asks until it is so."""
        while True:
            page = prom.Metrics(proxy.admin("/metrics").text)
            found = page.sum("istio_requests_total", **labels)
            is_there = page.sum("istio_requests_total") is not None
            if is_there and n <= (found or 0) <= n + more:
                return check(True, "%-30s %5d" % (what, found or 0))
            if time.monotonic() > self.metrics_until:
                return check(False, "%-30s %5d" % (what, found or 0), "%d wanted" % n)
            time.sleep(0.05)


# --- reading ---

def read_xfcc(answer):
    """(who called, who was called) by x-forwarded-client-cert, which the sidecar of the one
    that was called wrote from the caller's certificate."""
    header = answer.get("received", {}).get("x-forwarded-client-cert", "")
    fields = dict(part.split("=", 1) for part in header.split(",")[-1].split(";")
                  if "=" in part)
    return fields.get("URI", "none"), fields.get("By", "none")


def status_of(text):
    """Of a line in Istio's access log format."""
    return text.split('"')[2].split()[0]


def policy_of(text):
    """The policy's name in a line's RESPONSE_CODE_DETAILS; "none": no policy allowed it."""
    match = re.search(r"rbac_access_denied_matched_policy\[(?:ns\[(\S+?)\]-policy\[(\S+?)\]"
                      r"-rule\[\d+\]|none)\]", text)
    if match is None:
        return "not told"
    return "%s/%s" % (match[1], match[2]) if match[2] else "none"


def share(answers, version):
    seen = [a.call("reviews").get("answer", {}).get("version") for a in answers]
    return seen.count(version) / len(seen) if seen else 0.0
