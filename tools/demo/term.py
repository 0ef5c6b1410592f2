"""What the demo prints: titles, lines, and a mark before each thing that was verified."""

import os
import sys

_tty = sys.stdout.isatty()
_coloured = _tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
_wide = "utf" in (sys.stdout.encoding or "").lower()
_steps = 0
failures = []  # texts of what was not so

ARROW, DOT = ("→", "·") if _wide else ("->", "-")
_YES, _NO = ("✓", "✗") if _wide else ("ok", "NOT SO")


def _paint(code, text):
    return "\033[%sm%s\033[0m" % (code, text) if _coloured else text


def bold(text):
    return _paint("1", text)


def dim(text):
    return _paint("2", text)


def say(text=""):
    if not _wide:
        text = text.encode("ascii", "replace").decode()
    print(text, flush=True)


def title(text):
    say()
    say("  " + bold(text))


def step(text):
    """Begins a step of the show."""
    global _steps
    _steps += 1
    say()
    say("%s %s" % (_paint("36;1", "%2d" % _steps), bold(text)))


def line(what, value=""):
    """Something seen, no judgement: <what> in a column, <value> after it."""
    say("     %-26s %s" % (what, value))


def check(so, text, otherwise=None):
    """Shows <text> as verified, or as not so, with what was found instead."""
    if so:
        say("   %s %s" % (_paint("32", _YES), text))
    else:
        failures.append(text)
        say("   %s %s%s" % (_paint("31;1", _NO), text,
                            "" if otherwise is None else dim("  (%s)" % (otherwise,))))
    return so


def progress(text):
    """A passing word on a terminal, nothing elsewhere."""
    if _tty:
        sys.stdout.write("\r  %-70s\r" % text)
        sys.stdout.flush()
