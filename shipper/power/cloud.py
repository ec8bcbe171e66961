"""Termination notices of clouds, from their metadata services.

- AWS: "Spot Instance interruption notices" of the EC2 guide, with session tokens (IMDSv2).
- Google Cloud: `instance/preempted`, of "Create and use preemptible VMs" and "Querying metadata".
- Azure: "Scheduled Events for Linux VMs", version 2020-07-01.

Addresses can be configured, so that they can be tested and reached through a local forwarder.
A notice of AWS or Google Cloud is not taken back; an event of Azure is, when it disappears.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import msgspec

from shipper.power.source import OnBattery, PolledSource, Report, Restored

AWS_URL: Final = "http://169.254.169.254"
GCP_URL: Final = "http://metadata.google.internal"
AZURE_URL: Final = "http://169.254.169.254"

AWS_INTERVAL_S: Final = 5.0
"""As its guide recommends."""
AWS_TOKEN_TTL_S: Final = 21600
GCP_NOTICE_S: Final = 30.0
"""From the notice to the end, as its guide says."""
GCP_WAIT_S: Final = 60
"""How long one request waits for a change."""
AZURE_INTERVAL_S: Final = 1.0
AZURE_FIRST_TIMEOUT_S: Final = 130.0
"""The first request switches the service on, which may take two minutes."""
TIMEOUT_S: Final = 10.0
_BODY_BYTES_MAX: Final = 1 << 20

_ENDING: Final = frozenset({"Reboot", "Redeploy", "Preempt", "Terminate"})
"""Events of Azure in which memory is lost; Freeze keeps it."""


class _Notice(msgspec.Struct):
    action: str
    time: str


class AzureEvent(msgspec.Struct, rename="pascal"):
    """What counts of a scheduled event."""

    event_type: str
    event_status: str = ""
    resources: list[str] = []
    not_before: str = ""
    """An RFC 1123 date; empty once it has started."""


class AzureEvents(msgspec.Struct, rename="pascal"):
    """The document of scheduled events."""

    events: list[AzureEvent] = []


def seconds_until(when: datetime, now: datetime) -> float:
    """Tell how long it is until a moment.

    Args:
        when: The moment; without a zone it is taken for UTC.
        now: The present.

    Returns:
        Seconds, never below 0.
    """
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def parse_notice(body: bytes, now: datetime) -> float | None:
    """Read AWS' instance-action.

    Args:
        body: What the service answered.
        now: The present.

    Returns:
        Seconds until the end; None: it does not say when, in a form that can be read.

    Raises:
        ValueError: It is no notice.
    """
    notice = msgspec.json.decode(body, type=_Notice)
    try:
        return seconds_until(datetime.fromisoformat(notice.time), now)
    except ValueError:
        return None


def next_end_s(events: list[AzureEvent], vm: str, now: datetime) -> tuple[bool, float | None]:
    """Tell whether an event ends this machine.

    Args:
        events: What is scheduled.
        vm: This machine's name.
        now: The present.

    Returns:
        Whether one does, and in how many seconds the first of them; None: it has begun, or does
        not say.
    """
    ending = [one for one in events if one.event_type in _ENDING and vm in one.resources]
    if not ending:
        return False, None
    ends = []
    for one in ending:
        try:
            ends.append(seconds_until(parsedate_to_datetime(one.not_before), now))
        except ValueError:
            return True, None
    return True, min(ends)


class _CloudSource(PolledSource):
    def __init__(self, name: str, url: str, interval_s: float) -> None:
        super().__init__(name, interval_s)
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def watch(self, report: Report) -> None:
        """Report events until cancelled.

        Args:
            report: Takes them.
        """
        # trust_env is off: a metadata service is never behind a proxy.
        async with aiohttp.ClientSession(trust_env=False) as self._session:
            await super().watch(report)

    async def _ask(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        timeout_s: float = TIMEOUT_S,
        expected: tuple[int, ...] = (200,),
    ) -> tuple[int, bytes, Mapping[str, str]]:
        assert self._session is not None
        async with asyncio.timeout(timeout_s):
            async with self._session.request(
                method, self._url + path, headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:  # fmt: skip
                if response.status not in expected:
                    raise ValueError(f"{path.partition('?')[0]} is answered by {response.status}")
                body = b""
                async for piece in response.content.iter_chunked(1 << 16):
                    body += piece
                    if len(body) > _BODY_BYTES_MAX:
                        raise ValueError(
                            f"{path.partition('?')[0]} is answered at too great length"
                        )
                return response.status, body, response.headers


class AwsSource(_CloudSource):
    """Interruption notices of AWS' spot instances.

    Args:
        name: What it was asked for by.
        url: The metadata service.
        interval_s: How often it is asked.
    """

    def __init__(self, name: str, url: str = AWS_URL, interval_s: float = AWS_INTERVAL_S) -> None:
        super().__init__(name, url, interval_s)
        self._token: str | None = None

    async def step(self, report: Report) -> None:
        """Ask once; a token that has expired is replaced.

        Args:
            report: Takes the notice, if there is one.

        Raises:
            ValueError: The service answers what it should not.
        """
        status, body = await self._action()
        if status == 401:
            self._token = None
            status, body = await self._action()
        if status == 401:
            raise ValueError("the metadata service refuses its own token")
        if status == 200:
            left = parse_notice(body, datetime.now(UTC))
            report(OnBattery(self.name, left, is_firm=True, is_repeated=True))

    async def _action(self) -> tuple[int, bytes]:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_TTL_S)}
            _, token, _ = await self._ask("/latest/api/token", ttl, method="PUT")
            self._token = token.decode("ascii").strip()
        status, body, _ = await self._ask(
            "/latest/meta-data/spot/instance-action",
            {"X-aws-ec2-metadata-token": self._token},
            expected=(200, 401, 404),
        )
        return status, body


class GcpSource(_CloudSource):
    """Preemption of Google Cloud's machines.

    Args:
        name: What it was asked for by.
        url: The metadata service.
        wait_s: How long one request waits for a change.
        interval_s: How long to wait between requests.
    """

    def __init__(
        self, name: str, url: str = GCP_URL, wait_s: int = GCP_WAIT_S, interval_s: float = 0.1
    ) -> None:
        super().__init__(name, url, interval_s)
        self._wait_s = wait_s
        self._etag: str | None = None

    async def step(self, report: Report) -> None:
        """Ask once; from the second time on the answer comes when there is a change.

        Args:
            report: Takes the notice, if there is one.

        Raises:
            ValueError: The service answers what it should not.
        """
        query = ""
        if self._etag is not None:
            query = f"?wait_for_change=true&last_etag={self._etag}&timeout_sec={self._wait_s}"
        etag, self._etag = self._etag, None  # after an error the next request does not wait
        _, body, headers = await self._ask(
            "/computeMetadata/v1/instance/preempted" + query,
            {"Metadata-Flavor": "Google"},
            timeout_s=TIMEOUT_S + (self._wait_s if query else 0),
        )
        if headers.get("Metadata-Flavor") != "Google":
            raise ValueError("the answer is not from Google Cloud's metadata service")
        self._etag = headers.get("ETag", etag)
        word = body.decode("ascii").strip()
        if word == "TRUE":
            report(OnBattery(self.name, GCP_NOTICE_S if query else None, is_firm=True))
        elif word != "FALSE":
            raise ValueError(f"instance/preempted is {word[:40]!r}")


class AzureSource(_CloudSource):
    """Scheduled events of Azure.

    Args:
        name: What it was asked for by.
        url: The metadata service.
        interval_s: How often it is asked.
    """

    def __init__(
        self, name: str, url: str = AZURE_URL, interval_s: float = AZURE_INTERVAL_S
    ) -> None:
        super().__init__(name, url, interval_s)
        self._vm: str | None = None
        self._timeout_s = AZURE_FIRST_TIMEOUT_S

    async def step(self, report: Report) -> None:
        """Ask once.

        Args:
            report: Takes what the events mean for this machine.
        """
        headers = {"Metadata": "true"}
        if self._vm is None:
            path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            _, name, _ = await self._ask(path, headers)
            self._vm = name.decode().strip()
        path = "/metadata/scheduledevents?api-version=2020-07-01"
        _, body, _ = await self._ask(path, headers, timeout_s=self._timeout_s)
        self._timeout_s = TIMEOUT_S
        events = msgspec.json.decode(body, type=AzureEvents).events
        is_ending, left_s = next_end_s(events, self._vm, datetime.now(UTC))
        if is_ending:
            report(OnBattery(self.name, left_s, is_firm=True, is_repeated=True))
        else:
            report(Restored(self.name))
