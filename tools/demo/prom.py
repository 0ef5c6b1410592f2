"""Prometheus' text format, as far as sums over labels need it."""

import re

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    def __init__(self, text):
        self.series = []  # (name, {label: value}, number)
        for line in text.splitlines():
            match = _SERIES.match(line)
            if match and not line.startswith("#"):
                name, labels, value = match.groups()
                self.series.append((name, dict(_LABEL.findall(labels or "")), float(value)))

    def sum(self, name, **labels):
        """Over all series <name> whose labels are so. None: there is no such series."""
        found = [value for series, has, value in self.series
                 if series == name and all(has.get(k) == v for k, v in labels.items())]
        return int(sum(found)) if found else None

    def label_values(self, name, label):
        return sorted({has.get(label, "") for series, has, _ in self.series
                       if series == name})
