"""LimitFinder: how many requests and tokens a second an endpoint admits, found out from its 429s. Pure; the time is an argument.

    opening   twice the rate every second until the first 429, as TCP's slow start (RFC 5681, 3.1)
    open      what the last round admitted and, while the pace is what holds requests back, slowly more of it
    closed    after a 429 nobody goes; then one request goes as a probe, and what is not refused soon opens the gate again

A round lasts from one opening of the gate to the next, so its average is what the endpoint admits however it counts: an allowance
that refills evenly closes it for moments, one that is given out by the minute until the next minute, and that silence is part of
the round. A limit that was told is a ceiling: the finder then starts there, and answers when the endpoint admits less.
"""

from __future__ import annotations

import math

FIRST_RATE = 2.0
_MEASURED, _MEASURED_REQUESTS = 5.0, 10
"""Seconds and requests below which a round's average says little: the rate is cut by a little instead."""
_CUT, _MOST_CUT, _OPENING_CUT = 0.97, 0.7, 0.55
_STEP, _MOST_STEP, _STEP_SECONDS, _STEP_REQUESTS = 0.01, 0.25, 2.0, 4
_GUESSED_STEP, _CUT_STEP = 0.1, 0.04
"""Until the next 429, after the first one: what the opening measured is a guess, far too low where part of a minute was given
out. And after cuts that followed each other closely, as when a limit is halved: they end somewhere below it.
"""
_OPENING_ROUND = 15.0
"""Seconds of the opening in which a request that need not wait says nothing: the pace is ahead of whoever asks."""
_CALM = 30.0
"""Seconds without a 429 after which the steps grow: a limit that was raised is found within minutes."""
_LONG_ROUND = 90.0
_LEAST_PAUSE, _USUAL_PAUSE, _MOST_PAUSE, _MOST_HINT = 0.1, 5.0, 12.0, 60.0
_PAUSE_REQUESTS = 8
"""A probe in the time of so many requests: what probes cost is a part of what is admitted, however little that is."""
_WINDOW = 60.0
_LONG_CLOSURE = 2.5
_OUTAGE = 75.0
"""A closure longer than any minute was no allowance used up, and what it did not admit says nothing of the limit."""
_LEFTOVERS = 3.0
"""Where minutes are known to begin at some second: an opening that lasted no longer was for what was left of the one before."""
_LEAST = 1 / 60
_FEW = 5
"""Requests between two 429s that make the second one a sign of a rate far too high, and the next cut a larger one."""


class LimitFinder:
    """`requests` and `tokens` are what may be asked now, a second, by whoever had the whole account; infinity: not limited.

    `ceiling` (requests, tokens a second; infinity where not told) is never exceeded. `scale` in `sent` is the number of such
    processes that would make up the account, so that a process whose share changes keeps what it found out.
    """

    def __init__(self, now: float, ceiling: tuple[float, float] = (math.inf, math.inf)) -> None:
        self.ceiling = ceiling
        self.told = not (math.isinf(ceiling[0]) and math.isinf(ceiling[1]))
        self.requests = ceiling[0] if self.told else FIRST_RATE
        self.tokens = ceiling[1]
        self.closed = False
        self.version = 0
        self._opening = not self.told
        self._step = _STEP
        self._closed_at = self._opened_at = self._until = self._pause = 0.0
        self._probe_at: float | None = None
        self._probe = (0.0, 0.0)
        self._refused_probe_at = 0.0
        self._window: tuple[float, float] | None = None
        self._tried_window = self._window_confirmed = False
        self._refusal = 0.1
        self._guess: tuple[float, float] | None = None
        self._cut = _CUT
        self._since_open = 0
        self._refused_at = self._stepped = self._round_at = now
        self._sent = self._sent_tokens = 0.0
        self._whole = True  # whether the round began with an opening, and not in the middle of what a minute gave out

    @property
    def rate(self) -> float:
        """Requests a second, for a person."""
        return self.requests

    # ---- may a request leave ----------------------------------------------------------------------------------------
    def wait(self, now: float) -> float:
        """Seconds until a request may leave as far as 429s are concerned."""
        if not self.closed:
            return 0.0
        if self._probe_at is not None:
            left = self._probe_at + self._verdict - now
            if left > 0:
                return left
            self._open(now)
            return 0.0
        return max(0.0, self._until - now)

    @property
    def _verdict(self) -> float:
        """Seconds after which a probe that was not refused is taken for accepted: refusals come at once, answers do not."""
        return min(2.0, max(0.1, 3 * self._refusal))

    def sent(self, tokens: float, scale: float, now: float) -> bool:
        """A request leaves; True if it is the probe."""
        self._sent += scale
        self._sent_tokens += tokens * scale
        self._since_open += 1
        if self.closed and self._probe_at is None:
            self._probe_at, self._probe = now, (scale, tokens * scale)
            return True
        return False

    def idle(self, now: float) -> None:
        """A request did not have to wait: what the endpoint admits can not be told from what was asked so far."""
        if not self.closed and not (self._opening and now - self._round_at < _OPENING_ROUND):
            self._round_at, self._sent, self._sent_tokens = now, 0.0, 0.0
            self._whole = False

    def settled(self, tokens: float, scale: float) -> None:
        """A request used so many tokens less than it had reserved."""
        self._sent_tokens -= tokens * scale

    def unsent(self, tokens: float, scale: float, now: float, probe: bool) -> None:
        """A request that was let go has not left after all."""
        self._sent -= scale
        self._sent_tokens -= tokens * scale
        if probe and self.closed:
            self._probe_at = None

    def accepted(self, now: float, probe: bool) -> None:
        """The endpoint answered a request, well or not, with anything but a 429."""
        if probe and self.closed and self._probe_at is not None:
            self._open(now)

    # ---- 429 --------------------------------------------------------------------------------------------------------
    def limited(self, tokens: float, scale: float, sent_at: float, now: float, probe: bool, hint: float | None) -> bool:
        """429 for a request sent at `sent_at`. True if it closed the gate, which happens once for those under way together.

        `hint` is what the endpoint asks for, in seconds: heeded up to a minute, then it is asked again. It makes a pause longer,
        never shorter: one of 0 or less is none, and an endpoint that asks for less than it takes is asked less and less often.
        """
        self._sent -= scale
        self._sent_tokens -= tokens * scale
        self._refusal += 0.2 * (min(1.0, now - sent_at) - self._refusal)
        self._refused_at = now
        asked = None if hint is None or hint <= 0 else min(hint, _MOST_HINT)
        if not self.closed:
            if sent_at <= self._closed_at:
                return False  # under way when another was refused, and that was answered since
            self.closed, self._closed_at, self._probe_at, self._tried_window = True, now, None, False
            fresh = min(1.0, max(_LEAST_PAUSE, 0.2 / self.requests))
            if self._since_open < _FEW or (self._window_confirmed and now - self._opened_at < _LEFTOVERS):
                # It opened a moment too early, for what little was left: the minute starts between the probe and the guess.
                self._window, self._window_confirmed = self._guess, self._guess is not None
                fresh = max(fresh, min(2.0, 1.5 * self._pause))
            self._pause, self._guess = fresh, None
            self._until = now + max(self._pause, asked or 0.0)
            self._refused_probe_at = now
            return True
        if self._probe_at is not None and (probe or sent_at >= self._probe_at):
            self._probe_at = None
            self._refused_probe_at = sent_at
            most = min(_MOST_PAUSE, max(_USUAL_PAUSE, _PAUSE_REQUESTS / self.requests))
            self._pause = min(most, 3 * self._pause)
            self._until = now + max(self._pause, asked or 0.0)
            if asked is None:
                self._until = self._by_the_minute(now)
        elif asked is not None and self._probe_at is None:
            self._until = max(self._until, now + asked)
        return False

    def _by_the_minute(self, now: float) -> float:
        """When to probe next: an endpoint that opened at some second of the minute before will do so again."""
        if self._tried_window:
            self._window = None
        if self._window is None or not self._window_confirmed:
            return self._until
        low, high = self._window
        if self._refused_probe_at > low + _WINDOW * math.ceil((now - high) / _WINDOW):
            low = high
        at = high if high - low < 0.5 else (low + high) / 2
        minutes = _WINDOW * math.ceil((now + 0.05 - at) / _WINDOW)
        ahead = at + minutes
        self._guess = (ahead, high + minutes) if at < high else None
        self._tried_window = at == high
        return min(ahead, now + _MOST_HINT)

    def _open(self, now: float) -> None:
        """The probe was accepted: the round is over, and its average is what the endpoint admits."""
        probe_at = self._probe_at if self._probe_at is not None else now
        self.closed, self._probe_at = False, None
        if probe_at - self._closed_at >= _LONG_CLOSURE:
            self._learn_window(self._refused_probe_at, probe_at)
        seconds, brief = probe_at - self._round_at, probe_at - self._closed_at
        self._sent, self._sent_tokens = self._sent - self._probe[0], self._sent_tokens - self._probe[1]
        each = self._sent_tokens / self._sent if self._sent > 0 else 0.0
        step = _STEP
        if brief > _OUTAGE:
            self._set(self.requests * _MOST_CUT, self.tokens * _MOST_CUT)
            self._begin_round(probe_at)
        elif seconds >= _MEASURED and self._sent >= _MEASURED_REQUESTS:
            least = 0.0 if self._opening else max(0.0 if self._whole else _MOST_CUT, _CUT - 1.5 * brief / seconds)
            self._cut = _CUT
            self._set(
                _between(least, self._sent / seconds, self.requests),
                _between(least, self._sent_tokens / seconds, self.tokens) if self._sent_tokens > 0 else self.tokens,
            )
            self._begin_round(probe_at)
        elif self._opening:
            rate = self.requests * _OPENING_CUT
            self._set(rate, min(self.tokens, rate * each) if each > 0 else self.tokens)
            self._begin_round(probe_at)
        else:
            self._sent, self._sent_tokens = self._sent + self._probe[0], self._sent_tokens + self._probe[1]
            cut = self._cut
            self._set(self.requests * cut, self.tokens * cut)
            self._cut = max(_MOST_CUT, self._cut**2) if self._since_open < _FEW else _CUT
            step = _CUT_STEP if cut < _CUT else _STEP
        self._step, self._opening = _GUESSED_STEP if self._opening else step, False
        self._since_open, self._opened_at = 0, now
        self._stepped = now

    def _begin_round(self, probe_at: float) -> None:
        self._round_at, self._sent, self._sent_tokens = probe_at, *self._probe
        self._whole = True

    def _learn_window(self, refused: float, accepted: float) -> None:
        """A long closure ended between these two: at the same second of a minute as the one before, or that says nothing."""
        low, confirmed = refused, False
        if self._window is not None:
            known_low, known_high = self._window
            minutes = _WINDOW * round((accepted - known_high) / _WINDOW)
            confirmed = known_low + minutes < accepted and refused < known_high + minutes
            if confirmed:
                low = max(refused, known_low + minutes)
        self._window, self._window_confirmed = (low, accepted), confirmed

    # ---- more -------------------------------------------------------------------------------------------------------
    def grow(self, now: float, saturated: bool) -> None:
        """Look whether more may be asked: only while the pace is what held requests back, or idling would raise it."""
        least = 1.0 if self._opening else max(_STEP_SECONDS, _STEP_REQUESTS / self.requests)
        if self.closed or now - self._stepped < least:
            return
        self._stepped = now
        if not saturated:
            return
        if self._opening:
            self._set(2 * self.requests, 2 * self.tokens)
            return
        step = min(_MOST_STEP, self._step * 2.0 ** max(0.0, (now - self._refused_at - _CALM) / _CALM))
        self._set(self.requests * (1 + step), self.tokens * (1 + step))
        if now - self._round_at > _LONG_ROUND:
            self._round_at += (now - self._round_at) / 2
            self._sent, self._sent_tokens = self._sent / 2, self._sent_tokens / 2

    def hint(self, requests: float | None, tokens: float | None) -> None:
        """Limits a second that the endpoint's headers name, where nobody was told: the ceiling, and where to start from."""
        known = self.ceiling
        given = (math.inf if requests is None else requests, math.inf if tokens is None else tokens)
        if given == known:
            return
        self.ceiling = given
        if self._opening and not math.isinf(given[0]):
            self._opening = False
            self._set(given[0], given[1])
        elif given[0] < known[0] or given[1] < known[1]:
            self._set(self.requests, self.tokens)

    def _set(self, requests: float, tokens: float) -> None:
        self.requests = max(_LEAST, min(self.ceiling[0], requests))
        self.tokens = max(1.0, min(self.ceiling[1], tokens))
        self.version += 1


def _between(least: float, measured: float, rate: float) -> float:
    """What was measured, but less than the rate that was too much, and not less than that part of it."""
    if math.isinf(rate):
        return measured
    return max(least * rate, min(measured, 0.99 * rate))
