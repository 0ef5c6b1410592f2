#!/usr/bin/env python3
"""The sample application of the demo: a bookshop of four services in one program.

    page -> details
         -> reviews (v1: no ratings; v2: black stars; v3: red stars) -> ratings

One process is one workload:

    bookshop.py reviews --version v2 --listen 127.0.21.12:9080 \\
                        --upstream ratings=127.0.20.12:15001

It listens on exactly the address given (port 0 takes a free one) and prints one line once
it accepts connections. An upstream is reached at an explicit address, which in a mesh is
the workload's own sidecar; whom the call is for says its Host header, NAME:9080 unless
`--upstream NAME=ADDRESS:PORT/HOST` says otherwise.

Each answer is JSON: who answered, what it received of tracing and identity, and the whole
answers of those it called. A service whose call failed answers 502 and says which call: a
failure is never hidden behind a 200. Nothing is retried here, that is the mesh's task.

`ratings` fails on demand: `x-flaky: 2` makes the first two requests of one x-request-id
answer 503, `x-flaky: 2 reset` resets their connections instead. The query does it too:
/ratings/1?flaky=2&mode=reset&id=abc.

Python's standard library only. SIGTERM ends it at once.
"""

import argparse
import collections
import http.client
import http.server
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import urllib.parse

# What a request carries on to the calls it causes, so that one trace spans all of them
# (W3C trace context, B3 in both forms, Envoy's request id) and a demo can steer `ratings`
# and the routing rules from the outside.
FORWARDED = ("x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid",
             "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
             "x-ot-span-context", "x-flaky", "end-user")
SHOWN = ("host", "traceparent", "tracestate", "b3", "end-user", "forwarded", "via")

BODY_MAX = 1 << 20       # bytes of a request body that are read and thrown away
FLAKY_IDS_MAX = 10000    # ids that `ratings` remembers; the oldest is forgotten first
CALL_TIMEOUT_S = 30
IDLE_TIMEOUT_S = 75

REVIEWS = (("Reviewer1", "An extremely entertaining play by Shakespeare."),
           ("Reviewer2", "Absolutely fun and entertaining."))
STAR_COLOURS = {"v2": "black", "v3": "red"}


class Upstream:
    """Calls one service over kept-alive connections; any thread may call at any time."""

    def __init__(self, name, address, port, host):
        self.name, self.address, self.port, self.host = name, address, port, host
        self._idle = []
        self._lock = threading.Lock()

    def _take_idle(self):
        while True:
            with self._lock:
                if not self._idle:
                    return None
                conn = self._idle.pop()
            # An idle connection that has something to read was closed by the peer (or is
            # out of step): a request sent on it would fail for no fault of the mesh.
            if not select.select([conn.sock], [], [], 0)[0]:
                return conn
            conn.close()

    def _give_idle(self, conn):
        with self._lock:
            self._idle.append(conn)

    def get(self, path, headers):
        """What came of GET <path>: a dictionary for the answer's `calls`."""
        call = {"service": self.name, "host": self.host, "path": path}
        started = time.monotonic()
        conn = self._take_idle() or http.client.HTTPConnection(
            self.address, self.port, timeout=CALL_TIMEOUT_S)
        try:
            conn.request("GET", path, headers={"Host": self.host, **headers})
            answer = conn.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            conn.close()
            call["error"] = "%s: %s" % (type(error).__name__, error)
        else:
            call["status"] = answer.status
            if answer.will_close:
                conn.close()
            else:
                self._give_idle(conn)
            try:
                call["answer"] = json.loads(body)
            except ValueError:  # a proxy's own words, say "RBAC: access denied"
                call["body"] = body[:200].decode("utf-8", "replace").strip()
        call["ms"] = round((time.monotonic() - started) * 1000, 1)
        return call


class Flakiness:
    """Counts the requests of each id, so that the first k of them can fail."""

    def __init__(self):
        self._seen = collections.OrderedDict()
        self._lock = threading.Lock()

    def count(self, request_id):
        with self._lock:
            n = self._seen.pop(request_id, 0) + 1
            self._seen[request_id] = n
            if len(self._seen) > FLAKY_IDS_MAX:
                self._seen.popitem(last=False)
            return n


class BadRequest(Exception):
    """The message goes to the client with status 400."""


def is_number(text, digits_max=9):
    return text.isascii() and text.isdigit() and len(text) <= digits_max


class Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "bookshop"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S
    wbufsize = -1  # head and body leave in one segment
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass  # quiet: access logs are the proxies' task

    def do_GET(self):
        try:
            self._read_body()
        except BadRequest as error:
            self.close_connection = True
            self._answer(400, {"error": str(error)})
            return
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/health":
            self._answer(200, {"status": "ok"})
            return
        self.url_path = url.path
        self.query = urllib.parse.parse_qs(url.query)
        try:
            reply = self.server.shop.answer(self)
        except BadRequest as error:
            self._answer(400, {"error": str(error)})
            return
        if reply is None:
            self._reset()
        else:
            self._answer(*reply)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _read_body(self):
        """Reads the body away, so that the next request on the connection is found."""
        if "transfer-encoding" in self.headers:
            if self.headers["transfer-encoding"].strip().lower() != "chunked":
                raise BadRequest("transfer-encoding must be chunked")
            total = 0
            while True:
                line = self.rfile.readline(80).split(b";")[0].strip()
                try:
                    size = int(line, 16)
                except ValueError:
                    raise BadRequest("bad chunk size") from None
                total += size
                if size < 0 or total > BODY_MAX:
                    raise BadRequest("body too large")
                if size == 0:
                    break
                self.rfile.read(size + 2)
            while self.rfile.readline(65537) not in (b"\r\n", b"\n", b""):
                pass  # trailers
            return
        length = self.headers.get("content-length", "0")
        if not is_number(length) or int(length) > BODY_MAX:
            raise BadRequest("bad content-length")
        self.rfile.read(int(length))

    def _answer(self, status, fields):
        shop = self.server.shop
        address, port = self.server.server_address[:2]
        whole = {"service": shop.role, "version": shop.version, "address": address,
                 "port": port, "status": status, "method": self.command, **fields,
                 "received": self._shown_headers()}
        body = (json.dumps(whole, indent=1) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Served-By", "%s-%s" % (shop.role, shop.version))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _shown_headers(self):
        return {name.lower(): ", ".join(self.headers.get_all(name))
                for name in self.headers.keys()
                if name.lower() in SHOWN or name.lower().startswith("x-")}

    def _reset(self):
        """Ends the connection with RST instead of an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack("ii", 1, 0))
        # The server would shut the socket down in good order first: take it away.
        os.close(self.connection.detach())

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass  # the client has left, or the connection was reset on purpose


class Shop:
    """One service in one version: what it answers and whom it calls for that."""

    def __init__(self, role, version, upstreams):
        self.role, self.version, self.upstreams = role, version, upstreams
        self._flakiness = Flakiness()

    def answer(self, req):
        """(status, fields) for <req>, or None: reset the connection."""
        return getattr(self, "_answer_" + self.role)(req)

    def _answer_page(self, req):
        if req.url_path not in ("/", "/page"):
            return self._not_found(req)
        book = self._book_id(req.query.get("book", ["1"])[0])
        calls = self._call_all(req, {"details": "/details/" + book,
                                     "reviews": "/reviews/" + book})
        return self._with_calls(calls, {"book": book})

    def _answer_details(self, req):
        book = self._id_in_path(req, "/details/")
        if book is None:
            return self._not_found(req)
        return self._with_calls([], {
            "book": book, "title": "The Comedy of Errors",
            "author": "William Shakespeare", "year": 1595, "pages": 200})

    def _answer_reviews(self, req):
        book = self._id_in_path(req, "/reviews/")
        if book is None:
            return self._not_found(req)
        reviews = [{"reviewer": who, "text": text} for who, text in REVIEWS]
        calls = []
        if self.version in STAR_COLOURS:
            calls = self._call_all(req, {"ratings": "/ratings/" + book})
            ratings = calls[0].get("answer", {}).get("ratings", {})
            for review in reviews:
                if review["reviewer"] in ratings:
                    review["stars"] = ratings[review["reviewer"]]
                    review["colour"] = STAR_COLOURS[self.version]
        return self._with_calls(calls, {"book": book, "reviews": reviews})

    def _answer_ratings(self, req):
        book = self._id_in_path(req, "/ratings/")
        if book is None:
            return self._not_found(req)
        failures, mode, request_id = self._wished_failures(req)
        fields = {"book": book}
        if failures:
            fields["try"] = self._flakiness.count(request_id)
            if fields["try"] <= failures:
                if mode == "reset":
                    return None
                return 503, {**fields, "chain": [self._name()],
                             "error": "flaky: the first %d fail" % failures}
        return self._with_calls([], {**fields,
                                     "ratings": {"Reviewer1": 5, "Reviewer2": 4}})

    @staticmethod
    def _wished_failures(req):
        """(how many fail first, "503" or "reset", counted under which id)"""
        words = req.headers.get("x-flaky", "").split()
        words = words or req.query.get("flaky", []) + req.query.get("mode", [])
        if not words:
            return 0, "503", ""
        mode = words[1] if len(words) > 1 else "503"
        if not is_number(words[0]) or mode not in ("503", "reset"):
            raise BadRequest("x-flaky: COUNT [503|reset]")
        request_id = req.query.get("id", [req.headers.get("x-request-id", "")])[0]
        if not request_id:
            raise BadRequest("x-flaky needs an x-request-id, or ?id= in the path")
        return int(words[0]), mode, request_id

    def _call_all(self, req, paths):
        headers = {name: req.headers[name] for name in FORWARDED if name in req.headers}
        return [self.upstreams[name].get(path, headers) for name, path in paths.items()]

    def _name(self):
        return "%s-%s" % (self.role, self.version)

    def _with_calls(self, calls, fields):
        chain = [self._name()]
        for call in calls:
            chain += call.get("answer", {}).get("chain", [])
        fields = {**fields, "chain": chain, "calls": calls}
        failed = [call for call in calls if call.get("status") != 200]
        if not failed:
            return 200, fields
        return 502, {**fields, "error": "; ".join(
            "%s: %s" % (call["service"], call.get("status") or call["error"])
            for call in failed)}

    def _not_found(self, req):
        return 404, {"error": "%s has no %s" % (self.role, req.url_path)}

    def _id_in_path(self, req, prefix):
        if not req.url_path.startswith(prefix):
            return None
        return self._book_id(req.url_path[len(prefix):])

    @staticmethod
    def _book_id(text):
        if not is_number(text):
            raise BadRequest("a book's id is a number")
        return text


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address, shop):
        self.shop = shop
        super().__init__(address, Request)

    def server_bind(self):
        # Not HTTPServer's, which asks DNS for a name that nobody needs.
        http.server.socketserver.TCPServer.server_bind(self)

    def handle_error(self, request, client_address):
        # A peer that leaves in mid-request is everyday; anything else is a bug to be seen.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


NEEDS = {"page": ("details", "reviews"), "details": (), "reviews": ("ratings",),
         "ratings": ()}


def parse_address(text):
    host, _, port = text.rpartition(":")
    if not host or not is_number(port) or int(port) > 65535:
        raise argparse.ArgumentTypeError("not ADDRESS:PORT: %s" % text)
    return host, int(port)


def parse_upstream(text):
    name, _, where = text.partition("=")
    where, _, host = where.partition("/")
    address, port = parse_address(where)
    return Upstream(name, address, port, host or name + ":9080")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=NEEDS)
    parser.add_argument("--version", default="v1", choices=("v1", "v2", "v3"))
    parser.add_argument("--listen", type=parse_address, required=True,
                        metavar="ADDRESS:PORT")
    parser.add_argument("--upstream", type=parse_upstream, action="append", default=[],
                        metavar="NAME=ADDRESS:PORT[/HOST]")
    args = parser.parse_args()
    args.upstreams = {upstream.name: upstream for upstream in args.upstream}
    for name in NEEDS[args.role]:
        calls_it = args.role != "reviews" or args.version in STAR_COLOURS
        if calls_it and name not in args.upstreams:
            parser.error("%s calls %s: --upstream %s=ADDRESS:PORT is missing"
                         % (args.role, name, name))
    return args


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        server = Server(args.listen, Shop(args.role, args.version, args.upstreams))
    except OSError as error:
        sys.exit("bookshop: cannot listen on %s:%d: %s" % (*args.listen, error.strerror))
    print("%s-%s listens on %s:%d" % (args.role, args.version,
                                      *server.server_address[:2]), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
