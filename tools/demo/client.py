"""HTTP as the demo speaks it: kept-alive connections, answers with all that was measured."""

import http.client
import json
import time

DEADLINE_S = 30


class Answer:
    def __init__(self, response, body, ms):
        self.status, self.headers, self.ms = response.status, response.headers, ms
        self.text = body.decode("utf-8", "replace")

    @property
    def json(self):
        try:
            return json.loads(self.text)
        except ValueError:
            return {}

    def call(self, *path):
        """The answer within the answer: of whom <path> names, from caller to called."""
        here = self.json
        for name in path:
            here = next((c for c in here.get("calls", []) if c["service"] == name), {})
            if name != path[-1]:
                here = here.get("answer", {})
        return here


class Client:
    """One connection to <address>:<port>, made anew after a failure. Not for two threads."""

    def __init__(self, address, port, host):
        self.address, self.port, self.host = address, port, host
        self._conn = None

    def get(self, path, **headers):
        """OSError or http.client.HTTPException: no answer came."""
        if self._conn is None:
            self._conn = http.client.HTTPConnection(self.address, self.port,
                                                    timeout=DEADLINE_S)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        started = time.monotonic()
        try:
            self._conn.request("GET", path, headers={"Host": self.host, **headers})
            response = self._conn.getresponse()
            body = response.read()
        except Exception:
            self.close()
            raise
        if response.will_close:
            self.close()
        return Answer(response, body, (time.monotonic() - started) * 1000)

    @property
    def local_port(self):
        return self._conn.sock.getsockname()[1]

    def close(self):
        if self._conn is not None:
            self._conn.close()
        self._conn = None


NO_ANSWER = (OSError, http.client.HTTPException)


def get(address, port, path, host, **headers):
    client = Client(address, port, host)
    try:
        return client.get(path, **headers)
    finally:
        client.close()
