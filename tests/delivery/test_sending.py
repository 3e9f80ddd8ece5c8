"""Sending: nobody twice, nobody forgotten, no secret anywhere; against a stand-in that checks the services' rules."""

import collections
import itertools
import logging
import multiprocessing
import os
import random
import runpy
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from esp_standin import StandIn
from letters import HARD_NAMES, letter, nothing

from recsys.delivery import sending, service
from recsys.delivery.eml import Eml
from recsys.delivery.ledger import Ledger, letter_key
from recsys.delivery.mailchimp import Mailchimp, mailing_mark
from recsys.delivery.sendgrid import SendGrid
from recsys.errors import ConfigError

KEY = "SG.a-very-secret-key.0123456789-us6"
KEYS = {"SENDGRID_API_KEY": KEY, "MAILCHIMP_API_KEY": KEY}
QUICK = {"sender": "hello@shop.de", "requests_per_second": 10_000.0, "timeout": 5.0}


def sendgrid(url: str, **settings) -> SendGrid:
    return SendGrid(**{**QUICK, "base_url": url, "template_id": "d-" + "1" * 32, "settle_after": 0.3, **settings})


def mailchimp(url: str, **settings) -> Mailchimp:
    return Mailchimp(**{**QUICK, "base_url": f"{url}/3.0", "audience": "list1", "poll": 0.01, **settings})


def deliver(channel, letters, ledger: Path, mailing: str = "spring", tell=lambda text: None) -> sending.Outcome:
    return sending.send(channel, letters, mailing, ledger, tell, KEYS)


def users(n: int, prefix: str = "u") -> list:
    return [letter(f"{prefix}{i}", name=HARD_NAMES[i % len(HARD_NAMES)]) for i in range(n)]


def addresses(server: StandIn) -> list[str]:
    return sorted(one["email"] for one in server.mailed)


@pytest.fixture
def ledger(tmp_path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """Waits between attempts are short."""
    monkeypatch.setattr(service.random, "uniform", lambda low, high: 0.01)


@pytest.mark.parametrize("make", [sendgrid, mailchimp])
def test_a_thousand_letters_arrive_once_and_a_second_run_sends_none(make, ledger):
    letters = [*users(1000), nothing("empty"), letter("nowhere", None), letter("shown", "shown@customer.invalid")]
    with StandIn(KEY) as server:
        report = deliver(make(server.url), letters, ledger)
        assert addresses(server) == sorted(one.recipient.email for one in letters[:1000])
        assert (report.sent, report.sent_before, report.complete) == (1000, 0, True)
        left_out = {"nothing to recommend": ["empty"], "no address": ["nowhere"], "a stand-in for an address": ["shown"]}
        assert report.left_out == left_out
        again = deliver(make(server.url), letters, ledger)
        assert (again.sent, again.sent_before, again.complete) == (0, 1000, True)
        assert len(server.mailed) == 1000


@pytest.mark.parametrize("make", [sendgrid, mailchimp])
@pytest.mark.parametrize("fault", ["429", "503", "500", "500-after", "drop", "drop-after"])
def test_every_failure_of_the_service_is_outlived(make, fault, ledger):
    chance = random.Random(1)
    with StandIn(KEY, lambda method, path: fault if chance.random() < 0.4 else None) as server:
        report = deliver(make(server.url, batch_size=7, attempts=12), users(40), ledger)
        assert report.complete
        assert addresses(server) == sorted(one.recipient.email for one in users(40))


def test_a_service_that_stays_down_ends_the_run_and_the_next_one_goes_on(ledger):
    down = itertools.count()

    def fault(method, path):
        return "429" if path == "/v3/mail/send" and next(down) >= 2 else None

    with StandIn(KEY, fault) as server:
        report = deliver(sendgrid(server.url, batch_size=10, attempts=3), users(40), ledger)
        assert (report.sent, report.waiting, report.complete) == (20, 20, False)
        assert report.stopped == "POST /v3/mail/send: 429 too many requests; gave up after 3 attempts"
        assert "run the same command again" in report.lines(ledger)[-1]
        server.fault = lambda method, path: None
        report = deliver(sendgrid(server.url, batch_size=10), users(40), ledger)
        assert (report.sent, report.sent_before, report.complete) == (20, 20, True)
        assert len(server.mailed) == 40


def test_a_connection_that_is_refused_was_never_taken(ledger):
    with StandIn(KEY) as server:
        url = server.url
    report = deliver(sendgrid(url, attempts=2), users(3), ledger)
    assert not report.uncertain
    assert "gave up after 2 attempts" in report.stopped


@pytest.mark.parametrize("fault", ["500", "drop-after"])
def test_without_the_log_of_messages_a_broken_request_is_left_for_a_person(fault, ledger):
    with StandIn(KEY, lambda method, path: fault if path == "/v3/mail/send" else None) as server:
        server.scopes = ["mail.send"]
        told = []
        report = deliver(sendgrid(server.url, batch_size=4), users(10), ledger, tell=told.append)
        taken = len(server.mailed)
        assert any("messages.read" in text for text in told)
        assert (report.sent, len(report.uncertain), report.waiting) == (0, 1, 6)
        assert report.uncertain[0].users == ("u0", "u1", "u2", "u3")
        batch = report.uncertain[0].batch
        assert any(f"scripts/ledger.py {ledger} --batch {batch} --taken yes|no" in line for line in report.lines(ledger))
        server.fault = lambda method, path: None
        report = deliver(sendgrid(server.url, batch_size=4), users(10), ledger)
        assert (report.sent, len(report.uncertain), report.waiting, report.complete) == (6, 1, 0, False)
        with Ledger(ledger) as book:
            book.sent(batch, "seen") if taken else book.release(batch)
        assert deliver(sendgrid(server.url, batch_size=4), users(10), ledger).complete
        assert addresses(server) == sorted(one.recipient.email for one in users(10))


def test_the_wait_before_a_request_counts_as_not_taken_starts_when_it_last_left(ledger):
    """A request that was turned away for long and then broke off is not looked for too early."""
    answers = iter(["429"] * 5 + ["drop-after"])
    lag = 0.5
    with StandIn(KEY, lambda method, path: next(answers, None) if path == "/v3/mail/send" else None, lag=lag) as server:
        service_ = sendgrid(server.url, settle_after=lag + 0.3, attempts=9)
        report = deliver(service_, users(3), ledger)
        assert report.complete
        assert len(server.mailed) == 3


def test_letters_that_the_service_will_never_take_do_not_hold_up_the_others(ledger, monkeypatch):
    letters = users(9)
    with StandIn(KEY) as server:
        fine = sendgrid(server.url)
        monkeypatch.setattr("recsys.delivery.recipients.is_address", lambda text: True)
        letters[4] = letter("u4", "u4@nowhere")
        report = deliver(fine, letters, ledger)
        assert report.refused == {"u4": "Does not contain a valid address."}
        assert (report.sent, report.complete) == (8, True)
        again = deliver(fine, letters, ledger)
        assert (again.sent, again.refused) == (0, report.refused)


def test_members_that_mailchimp_does_not_take_are_told_and_the_others_written_to(ledger, monkeypatch):
    monkeypatch.setattr("recsys.delivery.recipients.is_address", lambda text: True)
    letters = [*users(5), letter("bad", "bad@nowhere")]
    with StandIn(KEY) as server:
        report = deliver(mailchimp(server.url, batch_size=2), letters, ledger)
        assert set(report.refused) == {"bad"}
        assert "Invalid Resource" in report.refused["bad"]
        assert report.sent == 5
        assert addresses(server) == sorted(one.recipient.email for one in users(5))


def test_a_mailchimp_campaign_goes_to_this_mailing_alone_and_to_nobody_who_unsubscribed(ledger):
    with StandIn(KEY) as server:
        deliver(mailchimp(server.url), users(4), ledger, "spring")
        assert {one["mailing"] for one in server.mailed} == {mailing_mark("spring")}
        next(iter(server.members.values()))["status"] = "unsubscribed"
        deliver(mailchimp(server.url), users(3), ledger, "summer")
        counts = collections.Counter(one["email"] for one in server.mailed)
        assert counts == {"u0@customers.test": 1, "u1@customers.test": 2, "u2@customers.test": 2, "u3@customers.test": 1}


def test_a_campaign_that_has_gone_out_takes_no_more_customers(ledger):
    with StandIn(KEY) as server:
        deliver(mailchimp(server.url), users(4), ledger)
        with pytest.raises(ConfigError, match="mailing 'spring' has gone out"):
            deliver(mailchimp(server.url), users(6), ledger)
        assert len(server.mailed) == 4


def test_whoever_got_a_letter_gets_no_other_of_the_mailing_by_another_service_or_spelling(ledger):
    with StandIn(KEY) as server:
        deliver(sendgrid(server.url), [letter("a", "Ann@customers.test")], ledger)
        report = deliver(mailchimp(server.url), [letter("a", "ann@CUSTOMERS.test")], ledger)
        assert (report.sent, report.sent_before) == (0, 1)
        assert len(server.mailed) == 1
        assert deliver(sendgrid(server.url), [letter("a", "ann@customers.test")], ledger, "summer").sent == 1


def test_the_pace_is_kept(ledger):
    with StandIn(KEY) as server:
        start = time.monotonic()
        deliver(sendgrid(server.url, batch_size=1, requests_per_second=20.0), users(8), ledger)
        assert time.monotonic() - start >= 8 / 20


@pytest.mark.parametrize(("header", "wait"), [({"retry-after": "3"}, 3), ({"x-ratelimit-reset": "now+5"}, 5), ({}, None)])
def test_the_wait_that_the_service_asks_for_is_kept(header, wait):
    headers = {name: str(int(time.time()) + 5) if value == "now+5" else value for name, value in header.items()}
    assert service._asked_wait(headers) == (wait if wait is None else pytest.approx(wait, abs=1.1))


def test_a_wait_that_is_too_long_ends_the_run(ledger):
    with StandIn(KEY) as server:

        def serve(handler):
            handler.wfile.write(
                b"HTTP/1.1 429 Too Many\r\nRetry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
            )
            handler.close_connection = True

        server.serve = serve
        report = deliver(sendgrid(server.url), users(2), ledger)
        assert report.stopped.endswith("gave up after 1 attempts")


@pytest.mark.parametrize(
    ("channel", "keys", "message"),
    [
        (Eml(), KEYS, "Eml only writes files; send with delivery=mailchimp or delivery=sendgrid"),
        (SendGrid(), KEYS, "delivery.sender: wanted your own address, found the placeholder letters@shop.example"),
        (
            SendGrid(sender="a@b.de", template_id="d-" + "1" * 32),
            {},
            "SENDGRID_API_KEY: sending wants your key in this environment variable, found none",
        ),
        (
            SendGrid(sender="a@b.de", template_id="d-" + "1" * 32),
            {"SENDGRID_API_KEY": f"{KEY}\r\nX-Evil: 1"},
            "SENDGRID_API_KEY: wanted a key in one word",
        ),
        (SendGrid(sender="a@b.de"), KEYS, "delivery.template_id: wanted the id of your dynamic template"),
        (Mailchimp(sender="a@b.de"), KEYS, "delivery.audience: wanted the id"),
        (
            Mailchimp(sender="a@b.de", audience="a1"),
            {"MAILCHIMP_API_KEY": "0123456789"},
            "MAILCHIMP_API_KEY: wanted a key that ends in its data",
        ),
    ],
)
def test_what_would_go_wrong_is_told_before_anything_is_asked(channel, keys, message, ledger):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")) as error:
        sending.send(channel, users(2), "spring", ledger, print, keys)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("make", [sendgrid, mailchimp])
def test_a_key_that_is_not_accepted_is_told_at_once(make, ledger):
    with StandIn("another key") as server, pytest.raises(ConfigError, match="does not accept the key"):
        deliver(make(server.url), users(2), ledger)
    with Ledger(ledger) as book:
        assert book.states("spring") == {}


@pytest.mark.parametrize("make", [sendgrid, mailchimp])
def test_the_key_is_nowhere(make, tmp_path, ledger, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    faults = itertools.cycle([None, "429", None, "500", None, "drop-after"])
    with StandIn(KEY, lambda method, path: next(faults)) as server:
        channel = make(server.url, batch_size=5)
        channel.write(users(5), tmp_path / "payloads")
        report = deliver(channel, users(20), ledger, tell=print)
        print(*report.lines(ledger), channel, channel.settings(), sep="\n")
        server.key = "another key"
        with pytest.raises(ConfigError) as error:
            deliver(channel, users(20), ledger)
    written = "".join(capfd.readouterr()) + caplog.text + str(error.value)
    written += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in written
    assert channel.authorization(KEY).split()[1] not in written


def test_an_address_is_not_in_the_ledger(ledger):
    with StandIn(KEY) as server:
        deliver(sendgrid(server.url), users(3), ledger)
    assert b"customers.test" not in ledger.read_bytes()


def test_two_senders_cannot_work_on_one_ledger(ledger):
    with Ledger(ledger), pytest.raises(ConfigError, match="another sender is at work"):
        Ledger(ledger)


def test_the_ledger_lists_what_is_uncertain_and_a_person_settles_it(ledger, capsys):
    main = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "ledger.py"))["main"]
    with Ledger(ledger) as book:
        for batch, user in (("one", "a"), ("two", "b")):
            book.claim("spring", batch, [(letter_key("spring", f"{user}@b.de"), user)])
    assert main([str(ledger)]) == 0
    assert "spring  1 customers: a" in capsys.readouterr().out
    main([str(ledger), "--batch", "one", "--taken", "yes"])
    main([str(ledger), "--batch", "two", "--taken", "no"])
    with Ledger(ledger) as book:
        assert list(book.states("spring").values()) == ["sent"]
    with pytest.raises(SystemExit) as ended:
        main([str(ledger), "--batch", "three", "--taken", "no"])
    assert ended.value.code == 2


def test_a_batch_is_claimed_whole_or_not_at_all(ledger):
    with Ledger(ledger) as book:
        book.claim("spring", "one", [(letter_key("spring", "a@b.de"), "a")])
        with pytest.raises(sqlite3.IntegrityError):
            book.claim("spring", "two", [(letter_key("spring", "c@b.de"), "c"), (letter_key("spring", "A@b.de"), "a")])
        assert list(book.states("spring").values()) == ["claimed"]


def _life(make, url: str, n: int, ledger: Path, mailing: str, die_at: int | None) -> None:
    """A sender's life as a process of its own; `die_at` is the step at which it kills itself, if any."""
    service.random.uniform = lambda low, high: 0.01
    if die_at is not None:
        steps = itertools.count()

        def mortal(method):
            def step(*arguments, **options):
                if next(steps) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = method(*arguments, **options)
                if next(steps) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return step

        for owner, name in [
            (Ledger, "claim"),
            (Ledger, "leaves"),
            (Ledger, "sent"),
            (Ledger, "note_fact"),
            (service.Http, "_ask"),
        ]:
            setattr(owner, name, mortal(getattr(owner, name)))
    report = deliver(make(url, batch_size=4), users(n, mailing), ledger, mailing)
    os._exit(0 if report.complete else 3)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["recsys.delivery.sending", "recsys.delivery.sendgrid", "recsys.delivery.mailchimp", "jsonschema", "pytest"]
    )
    return context


def _live(processes, *arguments, until: float | None = None) -> int:
    """Exit code of a life that is killed after `until` seconds, if it is not over by then."""
    process = processes.Process(target=_life, args=arguments)
    process.start()
    process.join(until)
    if process.is_alive():
        process.kill()
    process.join(60)
    return process.exitcode


def _nobody_twice_nobody_forgotten(server: StandIn, mailing: str, n: int) -> None:
    sent = collections.Counter(one["email"] for one in server.mailed if one["mailing"] in (mailing, mailing_mark(mailing)))
    assert sent == collections.Counter(one.recipient.email for one in users(n, mailing))


@pytest.mark.parametrize("make", [sendgrid, pytest.param(mailchimp, marks=pytest.mark.slow)])
def test_a_sender_that_dies_at_any_step_mails_nobody_twice_and_forgets_nobody(make, processes, tmp_path):
    with StandIn(KEY, lag=0.05) as server:
        for step in itertools.count():
            arguments = (make, server.url, 8, tmp_path / f"{step}.sqlite", f"m{step}")
            code = _live(processes, *arguments, step)
            assert code in (0, -signal.SIGKILL)
            assert _live(processes, *arguments, None) == 0
            _nobody_twice_nobody_forgotten(server, f"m{step}", 8)
            if code == 0:
                break
        assert step >= 14


@pytest.mark.slow
@pytest.mark.parametrize("make", [sendgrid, mailchimp])
def test_a_sender_killed_fifty_times_by_chance_mails_nobody_twice_and_forgets_nobody(make, processes, tmp_path):
    chance = random.Random(20261123)

    def fault(method, path):
        return chance.choice(["429", "500", "500-after", "drop", "drop-after"]) if chance.random() < 0.1 else None

    kills = 0
    with StandIn(KEY, fault, delay=0.02, lag=0.1) as server:
        for mailing in map(str, itertools.count()):
            arguments = (make, server.url, 60, tmp_path / "ledger.sqlite", f"m{mailing}", None)
            for _ in range(200):
                code = _live(processes, *arguments, until=chance.uniform(0.02, 0.6))
                assert code in (0, 3, -signal.SIGKILL)
                if code == 0:
                    break
                kills += code == -signal.SIGKILL
            assert code == 0
            _nobody_twice_nobody_forgotten(server, f"m{mailing}", 60)
            if kills >= 50:
                break
