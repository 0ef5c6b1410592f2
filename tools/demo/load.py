"""Steady traffic from several threads, each with a connection of its own; everything that
came of it is kept."""

import threading
import time

import client


class Load:
    """<n> clients ask for <path> in turn until stop()."""

    def __init__(self, n, address, port, path, host):
        self.clients = [client.Client(address, port, host) for _ in range(n)]
        self.path = path
        self.answers = [[] for _ in range(n)]  # (when, Answer), by client
        self.lost = [[] for _ in range(n)]     # (when, exception), by client
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True)
                         for i in range(n)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for c in self.clients:
            c.close()

    def _run(self, i):
        while not self._stop.is_set():
            try:
                answer = self.clients[i].get(self.path)
            except client.NO_ANSWER as error:
                self.lost[i].append((time.monotonic(), error))
                if len(self.lost[i]) > 100:  # nobody is there any more: don't spin
                    return
            else:
                self.answers[i].append((time.monotonic(), answer))
            with self._changed:
                self._changed.notify_all()

    def wait_for(self, condition, timeout_s=60):
        """Until <condition>() is so, looked at after each answer. False: it never was."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1))
        return True

    def count(self, since=0.0):
        return sum(when >= since for answers in self.answers for when, _ in list(answers))

    def since(self, start=0.0, end=float("inf")):
        return [answer for answers in self.answers for when, answer in list(answers)
                if start <= when < end]

    def lost_n(self):
        return sum(map(len, self.lost))
