"""What every mail service has in common: an address, a key, limits, and when a request may be made again."""

import json
import logging
import random
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import urllib3
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.delivery.channel import Channel
from recsys.delivery.ledger import Ledger
from recsys.delivery.letter import Letter
from recsys.delivery.recipients import Posted
from recsys.errors import ConfigError, UserError
from recsys.redaction import hide

log = logging.getLogger(__name__)

LONGEST_WAIT = 900.0
"""Seconds; a service that asks for more is left alone, and the sender ends."""


class NotTaken(UserError):
    """The service did not take the request, for sure. `body` is what it answered; `letters` says which letters of a batch it
    will never take, by their place, and why."""

    def __init__(self, message: str, body: Any = None, letters: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.body, self.letters = body, letters or {}


class Uncertain(UserError):
    """The request may or may not have been taken: the connection broke after it left, or the service failed on it."""


@dataclass(frozen=True)
class Answer:
    """What the service said: status, headers (any case) and the JSON body, None where it has none."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Http:
    """Requests to one service: paced, with a time limit, repeated with growing waits where nothing can happen twice.

    Repeated are requests that were turned away (429, 503 with `Retry-After`) or never left (no connection); `repeatable` ones
    after any failure of the service or the connection. The wait is what the service asks for, else a random time up to
    0.5·2ⁿ seconds. Every request has a connection of its own: one that is kept may close just as a request leaves. Redirects
    are not followed. The key stands in a header and nowhere else: not in errors, not in logs.
    """

    base_url: str
    authorization: str = field(repr=False)
    secrets: frozenset[str] = field(repr=False)
    requests_per_second: float
    attempts: int
    timeout: float
    sleep: Callable[[float], None] = time.sleep
    _next: float = field(default=0.0, init=False)

    def request(self, method: str, path: str, body: Any = None, once: Callable[[], None] | None = None) -> Answer:
        """Ask; the answer has a status below 300. `once` marks a request that must not be taken twice; it is called each time
        just before the request leaves.

        Raises `NotTaken` when the service refuses or is not to be reached, `Uncertain` when a request that must not be
        repeated may have been taken, and `ConfigError` when it does not accept the key.
        """
        asked = f"{method} {path.partition('?')[0]}"
        for attempt in range(1, self.attempts + 1):
            wait = random.uniform(0, 0.5 * 2**attempt)
            self._pace()
            if once:
                once()
            try:
                answer = self._ask(method, path, body)
            except urllib3.exceptions.HTTPError as error:
                what = f"{asked}: {self._hide(str(error) or type(error).__name__)}"
                if once and not _never_left(error):
                    raise Uncertain(what) from None
            else:
                if answer.status < 300:
                    return answer
                what = f"{asked}: {answer.status} {self._hide(_explain(answer.body))}".rstrip()
                if answer.status in (401, 403):
                    raise ConfigError(f"the service does not accept the key, or not for this: {what}")
                asked_wait = _asked_wait(answer.headers)
                turned_away = answer.status == 429 or (answer.status == 503 and asked_wait is not None)
                if not turned_away and answer.status < 500:
                    raise NotTaken(what, answer.body)
                if not turned_away and once:
                    raise Uncertain(what)
                wait = wait if asked_wait is None else asked_wait
            if attempt == self.attempts or wait > LONGEST_WAIT:
                raise NotTaken(f"{what}; gave up after {attempt} attempts")
            log.warning("%s; again in %.1f s", what, wait)
            self.sleep(wait)
        raise AssertionError("attempts are positive")

    def _ask(self, method: str, path: str, body: Any) -> Answer:
        headers = {"authorization": self.authorization, "connection": "close", "accept": "application/json"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        response = self._exchange(method, self.base_url.rstrip("/") + path, headers, data)
        try:
            found = json.loads(response.data) if response.data else None
        except ValueError:
            found = None
        return Answer(response.status, response.headers, found)

    def download(self, url: str) -> bytes:
        """A file that the service points to; without the key, which is for the service alone."""
        response = self._exchange("GET", url, {"connection": "close"})
        return response.data if response.status < 300 else b""

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(timeout=self.timeout, retries=False) as connection:
            return connection.request(method, url, body=data, headers=headers, redirect=False)

    def _pace(self) -> None:
        now = time.monotonic()
        if self._next > now:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self.requests_per_second

    def _hide(self, text: str) -> str:
        return hide(text, self.secrets | {self.authorization})


@dataclass(frozen=True)
class Mailing:
    """One mailing under way: its name, the way to the service, the ledger, and where progress is told."""

    name: str
    http: Http
    ledger: Ledger
    tell: Callable[[str], None]


BaseUrl = Annotated[str, Field(pattern=r"^(https://[^\s/@]+|http://(127\.0\.0\.1|localhost)(:\d+)?)(/[^\s?#]*)?$")]


@component
class Service(Channel):
    """A channel that sends. The key is what the environment variable `key_variable` holds.

    `base_url` is the API's address (https, or a stand-in on this machine). A request carries `batch_size` letters; at most
    `requests_per_second` are made. A request that is turned away is made again, `attempts` times in all; one takes `timeout`
    seconds at most. What may or may not have been taken counts as not taken when the service's own log does not know it
    `settle_after` seconds later.
    """

    key_variable: ClassVar[str]
    most_letters: ClassVar[int]

    base_url: BaseUrl
    batch_size: PositiveInt
    requests_per_second: PositiveFloat = 2.0
    attempts: PositiveInt = 6
    timeout: PositiveFloat = 60.0
    settle_after: NonNegativeFloat = 900.0

    def __post_init__(self) -> None:
        if self.batch_size > self.most_letters:
            raise ValueError(f"batch_size: the service takes {self.most_letters} at most, found {self.batch_size}")

    def left_out(self, letters: Sequence[Letter]) -> Mapping[str, list[str]]:
        """See `Channel.left_out`."""
        return self.select(letters).left_out

    @abstractmethod
    def authorization(self, key: str) -> str:
        """The header that carries the key."""

    def address(self, key: str) -> str:
        """The API's address for the account of the key."""
        return self.base_url

    def check(self) -> None:
        """Raise `ConfigError` where a setting that sending wants is missing."""

    def prepare(self, mailing: Mailing) -> None:
        """Before the first batch: see that the key may send, make what is missing."""

    def batches(self, posted: Sequence[Posted]) -> Iterator[Sequence[Posted]]:
        """The letters of each request."""
        for start in range(0, len(posted), self.batch_size):
            yield posted[start : start + self.batch_size]

    @abstractmethod
    def hand_over(self, mailing: Mailing, batch: str, posted: Sequence[Posted]) -> str:
        """Ask the service to take a batch; gives what it calls it. Raises as `Http.request`."""

    @abstractmethod
    def taken(self, mailing: Mailing, batch: str) -> bool | None:
        """Whether the service knows the batch; None when it does not say."""

    def finish(self, mailing: Mailing) -> None:
        """After the last batch."""


def write_payloads(folder: Path, bodies: Mapping[str, Any]) -> list[Path]:
    """Write the bodies of requests, by file name, to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (folder / name).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [folder / name for name in bodies]


def _never_left(error: Exception) -> bool:
    return isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait: `Retry-After` (seconds or a date), or `X-RateLimit-Reset` (a time)."""
    if text := headers.get("retry-after"):
        if re.fullmatch(r"\d+", text.strip()):
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
    reset = headers.get("x-ratelimit-reset", "")
    return max(0.0, float(reset) - time.time()) if reset.isdigit() else None


def _explain(body: Any) -> str:
    """The service's own words, in one line."""
    if not isinstance(body, dict):
        return ""
    parts = [body.get("title"), body.get("detail")]
    for problem in body.get("errors") or []:
        if isinstance(problem, dict):
            parts += [problem.get("field"), problem.get("message")]
    return " · ".join(str(part) for part in parts if part)[:500]
