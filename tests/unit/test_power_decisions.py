"""What is decided from what power sources say: pure parts, with a clock that the test moves."""

from __future__ import annotations

import itertools
import signal
from datetime import UTC, datetime, timedelta

import pytest

from pmlog.errors import ConfigError, ProtocolError
from shipper.power import cloud, decide, lights, nut, sysfs
from shipper.power.decide import Failures, Rank, State, is_parked, state_of, vault_s
from shipper.power.signals import SignalSource
from shipper.power.source import OnBattery, Restored
from shipper.power.spec import parse_power, parse_powers

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


# ---- what --power takes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pwr", "pwr"),
        ("term:25s", "term"),
        ("nut:ups@localhost:3493", "nut"),
        ("nut:my-ups.1@[::1]", "nut"),
        ("sysfs", "sysfs"),
        ("sysfs:/tmp/supplies", "sysfs"),
        ("aws", "aws"),
        ("aws:http://127.0.0.1:1338", "aws"),
        ("gcp", "gcp"),
        ("azure:http://127.0.0.1:1/base/", "azure"),
    ],
)
def test_sources(text: str, kind: str) -> None:
    """Each form makes a source of that name."""
    spec = parse_power(text)
    assert spec.kind == kind
    assert spec.make().name == text


@pytest.mark.parametrize(
    "text",
    ["", "mains", "pwr:", "pwr:1", "term", "term:", "term:25", "nut", "nut:ups", "nut:@host",
     "nut:u p@host", 'nut:u"p@host', "nut:ups@", "nut:ups@host:port", "nut:ups@host/x", "sysfs:",
     "aws:ftp://host", "aws:https://host", "gcp:host", "azure:http://", "aws:http://u@host",
     "aws:http://host?x"],
)  # fmt: skip
def test_no_sources(text: str) -> None:
    """Anything else is refused, and the message names what was given."""
    with pytest.raises(ConfigError) as caught:
        parse_power(text)
    assert text in str(caught.value)
    assert "nut:UPS@HOST:PORT" in str(caught.value) or "duration" in str(caught.value)


def test_sources_once() -> None:
    """The same source, and a second grace, are refused."""
    assert [one.kind for one in parse_powers(("pwr", "term:1s"))] == ["pwr", "term"]
    for texts in (("pwr", "pwr"), ("term:1s", "term:2s")):
        with pytest.raises(ConfigError):
            parse_powers(texts)


# ---- who says that power fails -----------------------------------------------------------------


def test_failing_until_all_agree() -> None:
    """Power is back when each source that said otherwise has said so, in any order."""
    for order in itertools.permutations(("a", "b", "c")):
        known = Failures()
        for number, name in enumerate(order):
            known = known.heard(OnBattery(name), 10.0 + number)
            known = known.heard(OnBattery(name), 10.0 + number)  # again: no harm
        assert (known.source, known.since_s) == (order[0], 10.0)
        for name in ("c", "a", "b"):
            assert known.is_failing
            known = known.heard(Restored(name), 20.0)
        assert not known.is_failing
        assert known.since_s is None
    # One that never failed says nothing by being there.
    assert Failures().heard(OnBattery("a"), 0).heard(Restored("b"), 1).is_failing


def test_operator_overrules() -> None:
    """After the operator's word a source that repeats itself is not heard until it agrees."""
    known = Failures().heard(OnBattery("ups", is_repeated=True), 0).heard(OnBattery("pwr"), 0)
    known = known.overruled()
    assert not known.is_failing
    assert not known.heard(OnBattery("ups", is_repeated=True), 1).is_failing
    assert known.heard(OnBattery("pwr"), 1).is_failing  # a new signal is a new failure
    known = known.heard(Restored("ups"), 2)
    assert known.heard(OnBattery("ups", is_repeated=True), 3).is_failing


def test_time_left() -> None:
    """The least of battery and sources counts; a UPS alone is believed by half."""
    ups = OnBattery("ups", 100.0)
    grace = OnBattery("term", 25.0, is_firm=True)
    assert Failures().heard(OnBattery("pwr"), 0).seconds_left(None, 5) is None
    assert Failures().heard(OnBattery("pwr"), 0).seconds_left(40.0, 5) == 40.0
    assert Failures().heard(ups, 0).seconds_left(None, 20) == 80 * decide.UPS_SHARE
    assert Failures().heard(ups, 0).seconds_left(60.0, 20) == 60.0
    assert Failures().heard(ups, 0).seconds_left(90.0, 20) == 80.0
    assert Failures().heard(grace, 0).seconds_left(None, 20) == 5.0
    assert Failures().heard(grace, 0).heard(ups, 0).seconds_left(90.0, 30) == 0.0
    # What is reported again replaces what was known.
    assert Failures().heard(ups, 0).heard(OnBattery("ups", 10.0), 5).seconds_left(90.0, 5) == 10.0
    assert Failures().heard(ups, 0).heard(OnBattery("ups"), 5).seconds_left(90.0, 50) == 50.0


@pytest.mark.parametrize("size_bytes", [0, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("seconds_left", [0.1, 2.0, 60.0])
def test_vault_begins_in_time(size_bytes: int, seconds_left: float) -> None:
    """The vault gets the time that it takes; receivers always get a part."""
    needed = vault_s(size_bytes, seconds_left)
    assert 0 < needed <= seconds_left * decide.VAULT_SHARE_MAX
    assert needed >= min(size_bytes / decide.VAULT_BYTES_PER_S, needed)


def test_who_goes_first() -> None:
    """Required ones go first, baselines last; after half of the time nobody waits."""
    every = list(Rank)
    for rank, other in itertools.product(every, every):
        assert is_parked(rank, frozenset({other}), 1.0, 60.0) == (other.value < rank.value)
        assert not is_parked(rank, frozenset({other}), 30.0, 60.0)
        assert not is_parked(rank, frozenset(), 1.0, 60.0)


def test_states() -> None:
    """Each state has its circumstances; a seal at receivers counts more than a vault."""
    yes_no = (True, False)
    for frozen, busy, sealed, vaulted, running in itertools.product(yes_no, repeat=5):
        state = state_of(
            is_frozen=frozen,
            is_busy=busy,
            is_sealed=sealed,
            is_vaulted=vaulted,
            is_running=running,
        )
        if not frozen:
            idle = State.UNSAVED if running else State.MAINS
            assert state is (State.SAVING if busy else idle)
        elif sealed or vaulted:
            assert state is (State.SEALED if sealed else State.VAULTED)
        else:
            assert state is (State.SAVING if busy else State.UNSAVED)


# ---- what sources read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reading"),
    [
        ("OL", nut.Reading(False)),
        ("OL CHRG", nut.Reading(False)),
        ("ALARM OL RB", nut.Reading(False)),
        ("OB", nut.Reading(True)),
        ("OB DISCHRG", nut.Reading(True)),
        ("OB LB", nut.Reading(True, True)),
        ("FSD OL", nut.Reading(True, True)),
        ("OL LB", nut.Reading(False)),
        ("WAIT", nut.Reading(None)),
        ("OFF", nut.Reading(None)),
        ("", nut.Reading(None)),
        ("OBSTACLE", nut.Reading(None)),
    ],
)
def test_ups_status(status: str, reading: nut.Reading) -> None:
    """Words of ups.status count, not letters."""
    assert nut.judge(status) == reading


def test_upsd_answers() -> None:
    """A value is what is between the quotes; errors and answers to other questions are refused."""
    assert nut.parse_answer('VAR u ups.status "OL CHRG"', "u", "ups.status") == "OL CHRG"
    assert nut.parse_answer(r'VAR u x "a \"b\" \\"', "u", "x") == 'a "b" \\'
    assert nut.parse_answer("ERR VAR-NOT-SUPPORTED", "u", "x") is None
    for line in (
        "ERR DATA-STALE", "ERR DRIVER-NOT-CONNECTED", "ERR UNKNOWN-UPS", "", "OK Goodbye",
        'VAR v x "1"', 'VAR u y "1"', "VAR u x 1", 'VAR u x "1',
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            nut.parse_answer(line, "u", "x")


@pytest.mark.parametrize(
    ("supplies", "reading"),
    [
        ([], sysfs.Reading.NOTHING),
        ([{"type": "Mains", "online": "1"}], sysfs.Reading.MAINS),
        ([{"type": "Mains", "online": "0"}], sysfs.Reading.BATTERY),
        ([{"type": "USB", "online": "0"}], sysfs.Reading.NOTHING),
        ([{"type": "USB", "online": "2"}], sysfs.Reading.MAINS),
        ([{"type": "Mains", "online": "0"}, {"type": "USB", "online": "1"}], sysfs.Reading.MAINS),
        ([{"type": "Battery", "status": "Discharging"}], sysfs.Reading.BATTERY),
        ([{"type": "UPS", "status": "Discharging"}], sysfs.Reading.BATTERY),
        ([{"type": "UPS", "status": "Full"}], sysfs.Reading.MAINS),
        ([{"type": "Battery", "status": "Unknown"}], sysfs.Reading.NOTHING),
        (
            [{"type": "Battery", "status": "Discharging", "scope": "Device"}],
            sysfs.Reading.NOTHING,
        ),
        (
            [{"type": "Mains", "online": "1"}, {"type": "Battery", "status": "Discharging"}],
            sysfs.Reading.MAINS,
        ),
        (
            [{"type": "Mains", "online": "0"}, {"type": "Battery", "status": "Full"}],
            sysfs.Reading.BATTERY,
        ),
        ([{"type": "Mains"}], sysfs.Reading.NOTHING),
    ],
)
def test_supplies(supplies: list[dict[str, str]], reading: sysfs.Reading) -> None:
    """Mains that is online counts most; a mouse's battery for nothing."""
    assert sysfs.judge(supplies) is reading


def test_notice_of_aws() -> None:
    """A notice says when; one that does not is a notice all the same."""
    body = b'{"action": "terminate", "time": "2026-03-01T12:02:00Z"}'
    assert cloud.parse_notice(body, NOW) == 120.0
    assert cloud.parse_notice(body, NOW + timedelta(hours=1)) == 0.0
    assert cloud.parse_notice(b'{"action": "hibernate", "time": "soon"}', NOW) is None
    for bad in (b"", b"{}", b"<html>", b'{"action": 1, "time": 2}'):
        with pytest.raises(ValueError):  # noqa: PT011 - of msgspec, whose text is not ours
            cloud.parse_notice(bad, NOW)


def test_events_of_azure() -> None:
    """Events count if memory is lost and this machine is meant; the first of them decides."""

    def event(kind: str, when: str, *names: str) -> cloud.AzureEvent:
        return cloud.AzureEvent(kind, "Scheduled", list(names), when)

    at_1 = "Sun, 01 Mar 2026 12:01:00 GMT"
    at_5 = "Sun, 01 Mar 2026 12:05:00 GMT"
    assert cloud.next_end_s([], "vm", NOW) == (False, None)
    assert cloud.next_end_s([event("Freeze", at_1, "vm")], "vm", NOW) == (False, None)
    assert cloud.next_end_s([event("Reboot", at_1, "other")], "vm", NOW) == (False, None)
    for kind in ("Reboot", "Redeploy", "Preempt", "Terminate"):
        assert cloud.next_end_s([event(kind, at_1, "x", "vm")], "vm", NOW) == (True, 60.0)
    both = [event("Reboot", at_5, "vm"), event("Preempt", at_1, "vm")]
    assert cloud.next_end_s(both, "vm", NOW) == (True, 60.0)
    assert cloud.next_end_s([event("Terminate", "", "vm")], "vm", NOW) == (True, None)


def test_mountinfo() -> None:
    """The kind of a file system stands behind a dash, after any number of optional fields."""
    text = (
        "25 1 0:23 / /dev/shm rw,nosuid shared:4 master:1 - tmpfs tmpfs rw\n"
        "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "nonsense\n"
    )
    assert lights.kinds_of(text) == {(0, 23): "tmpfs", (8, 1): "ext4"}


def test_grace_keeps_time_to_end() -> None:
    """Of a grace a part is kept for ending; of a long one no more than two seconds."""
    for grace_s, counted_s in ((100.0, 98.0), (1.0, 0.8)):
        source = SignalSource("term", signal.SIGTERM, grace_s)
        assert source.seconds_left == pytest.approx(counted_s)
    assert SignalSource("pwr", signal.SIGPWR).seconds_left is None
