"""Payloads and messages pass the services' published rules, whatever products and customers are called."""

import email
import hashlib
import json
import re
from dataclasses import fields, replace
from email.policy import default
from html import escape

import pytest
from esp_standin import (
    BATCH,
    CAMPAIGN,
    HANDLEBARS,
    MERGE_FIELD,
    MERGE_TAG,
    broken,
    content_faults,
    filled,
    mail_send_faults,
    member_faults,
)
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from letters import BREAKS, HARD_NAMES, LONG, MERGE, RIGHT_TO_LEFT, SCRIPT, letter, nothing
from omegaconf import OmegaConf

from recsys.cli import CONFIGS
from recsys.component import construct
from recsys.delivery.eml import Eml
from recsys.delivery.letter import Product, Recommended
from recsys.delivery.mailchimp import Mailchimp
from recsys.delivery.recipients import Posted, is_address, one_line, select
from recsys.delivery.sendgrid import SendGrid
from recsys.errors import ConfigError

HARD = [letter(f"h{i}", name=name, first_name=name) for i, name in enumerate(HARD_NAMES)]


def posted(one) -> Posted:
    return Posted(one, one.email, one.recipient.email)


def parsed(one, **settings) -> email.message.EmailMessage:
    return email.message_from_bytes(Eml(**settings).message(one, one.email).as_bytes(), policy=default)


def test_requests_for_a_thousand_users_pass_sendgrids_rules(tmp_path):
    letters = [letter(f"u{i}", name=HARD_NAMES[i % len(HARD_NAMES)]) for i in range(1001)]
    files = SendGrid(asm_group=7, reply_to="help@shop.test").write(letters, tmp_path)
    bodies = [json.loads(path.read_text()) for path in files if path.suffix == ".json"]
    assert [len(body["personalizations"]) for body in bodies] == [1000, 1]
    assert all(mail_send_faults(body) == [] for body in bodies)
    assert bodies[0]["asm"] == {"group_id": 7}
    assert [one["to"][0]["email"] for one in bodies[0]["personalizations"][:2]] == ["u0@customers.test", "u1@customers.test"]


def test_a_request_never_outgrows_sendgrids_size_limit():
    link = "https://shop.test/" + "x" * 1900
    items = tuple(Recommended(Product(str(n), LONG, "€1", link, link), 1) for n in range(20))
    letters = [type(one)(one.recipient, one.generated_at, items, one.email) for one in (letter(f"u{i}") for i in range(300))]
    channel = SendGrid(items=20)
    batches = list(channel.batches([posted(one) for one in letters]))
    assert sum(map(len, batches)) == 300
    assert len(batches) > 1
    assert all(len(json.dumps(channel.payload(batch, "m", "b")).encode()) < 30_000_000 for batch in batches)


def test_batches_for_a_thousand_users_pass_mailchimps_rules(tmp_path):
    channel = Mailchimp(audience="list1")
    letters = [letter(f"u{i}", name=HARD_NAMES[i % len(HARD_NAMES)]) for i in range(1001)]
    files = channel.write(letters, tmp_path)
    bodies = [json.loads(path.read_text()) for path in files if path.name.startswith("mailchimp-")]
    assert [len(body["operations"]) for body in bodies] == [500, 500, 1]
    for body in bodies:
        assert broken(BATCH, body) == []
        assert all(
            member_faults(one["path"], json.loads(one["body"]), set(channel.fields())) == [] for one in body["operations"]
        )
    fields = json.loads((tmp_path / "merge-fields.json").read_text())
    assert all(broken(MERGE_FIELD, field) == [] for field in fields)
    assert len(fields) <= 30
    assert broken(CAMPAIGN, json.loads((tmp_path / "campaign.json").read_text())) == []
    content = {"html": (tmp_path / "campaign.html").read_text(), "plain_text": (tmp_path / "campaign.txt").read_text()}
    assert content_faults(content, set(channel.fields())) == []


def test_a_member_is_known_by_the_md5_of_the_lower_case_address():
    operation = Mailchimp(audience="list1").payload([posted(letter("u", "Ann.B@Customers.test"))], "m")["operations"][0]
    assert operation["path"].endswith("/" + hashlib.md5(b"ann.b@customers.test").hexdigest())
    assert "status" not in json.loads(operation["body"])


def test_merge_fields_hold_the_letter_and_nothing_of_an_earlier_one():
    values = Mailchimp(items=2, reasons=2).values(posted(letter("u", price=None)), "m")
    assert values["FNAME"] == "Ann"
    assert values["TOP_NAME"] == "Lamp"
    assert values["TOP_PRICE"] == ""
    assert (values["TOP_WHY_1"], values["TOP_WHY_2"]) == ("You looked at Lamp 3 times", "Popular this week")
    assert (values["ALT_1"], values["ALT_1_URL"]) == ("Item 2", "https://shop.test/2")
    assert "ALT_2" not in values
    short = letter("u")
    short = type(short)(short.recipient, short.generated_at, short.recommendations[:1], short.email)
    assert Mailchimp(items=2).values(posted(short), "m")["ALT_1"] == ""


def test_a_link_that_does_not_fit_is_left_out_and_not_cut():
    one = letter("u")
    product = Product("1", "Lamp", None, None, "https://shop.test/" + "x" * 300)
    one = type(one)(one.recipient, one.generated_at, (Recommended(product, 1),), one.email)
    assert Mailchimp().values(posted(one), "m")["CTA_URL"] == ""
    assert SendGrid().template_data(posted(one))["top"]["url"] == product.url


def test_hard_names_arrive_whole_or_cut_never_as_markup_or_tags(tmp_path):
    shown = {name: SendGrid().template_data(posted(one))["top"]["name"] for name, one in zip(HARD_NAMES, HARD, strict=True)}
    assert shown[SCRIPT] == SCRIPT
    assert shown[RIGHT_TO_LEFT] == RIGHT_TO_LEFT
    assert shown[LONG] == "ä" * 299 + "…"
    assert shown[BREAKS] == "Lamp Bcc: thief@evil.test <b>x</b>"
    merged = {name: Mailchimp().values(posted(one), "m")["TOP_NAME"] for name, one in zip(HARD_NAMES, HARD, strict=True)}
    assert merged[SCRIPT] == SCRIPT
    assert merged[LONG] == "ä" * 126 + "…"
    assert "*|" not in merged[MERGE]


def test_only_links_of_the_web_get_into_payloads():
    one = letter("u")
    bad = Product("1", "Lamp", None, "data:image/svg+xml,<svg>", "javascript:alert(1)")
    one = type(one)(one.recipient, one.generated_at, (Recommended(bad, 1),), replace(one.email, cta_url="javascript:alert(1)"))
    assert "javascript" not in json.dumps(SendGrid().payload([posted(one)], "m", "b"))
    assert "javascript" not in json.dumps(Mailchimp().payload([posted(one)], "m"))


def test_a_service_gets_the_design_of_the_other_e_mails():
    channel = SendGrid(sender_name=SCRIPT)
    html, text = (channel.skeleton(is_html).body(channel, is_html) for is_html in (True, False))
    assert "<script>" not in html
    assert "{{{" not in html
    assert "{{#if top.price}}" in html
    assert html.count("{{#if") == html.count("{{/if}}")
    assert html.count("{{#each") == html.count("{{/each}}") == 3
    assert text.startswith("{{#if first_name}}Hello {{{first_name}}},{{else}}Hello,{{/if}}\n")
    assert "{{{cta_text}}}: {{{top.url}}}" in text
    assert "*|IF:ALT_2_PRC|**|ALT_2_PRC|*\n*|END:IF|*" in Mailchimp().skeleton(False).body(Mailchimp(), False)


def service_writes(make, one, html: bool) -> str:
    """The e-mail that a service makes of its template and one customer's payload."""
    channel = make(items=3)
    template = channel.skeleton(html).body(channel, html)
    if make is SendGrid:
        return filled(template, HANDLEBARS, channel.template_data(posted(one)), escaped=html)
    return filled(template, MERGE_TAG, channel.values(posted(one), "m") | {"UNSUB": "https://unsubscribe.test"}, escaped=html)


@pytest.mark.parametrize("make", [SendGrid, Mailchimp])
@pytest.mark.parametrize("one", HARD, ids=lambda one: one.recipient.user)
def test_what_a_service_makes_of_its_template_says_what_the_letter_says(make, one):
    html, text = (service_writes(make, one, is_html) for is_html in (True, False))
    name = (
        SendGrid().template_data(posted(one))["top"]["name"]
        if make is SendGrid
        else Mailchimp().values(posted(one), "m")["TOP_NAME"]
    )
    assert name in text
    assert escape(name) in html
    assert "<script" not in html
    for shown in ("Item 2", "Item 3", "€3.00", "https://shop.test/1", "See it", "Popular this week", "Unsubscribe"):
        assert shown in text
        assert shown in html
    assert not re.search(r"\*\||\|\*|{{|}}", html.replace(escape(name), "").replace(escape(MERGE), ""))


@pytest.mark.parametrize("make", [SendGrid, Mailchimp])
def test_what_is_unknown_leaves_no_trace_in_what_a_service_writes(make):
    one = letter("u", first_name=None, price=None)
    product = Product("1", "Lamp")
    one = replace(one, recommendations=(Recommended(product, 1),), email=replace(one.email, cta_url=None))
    html, text = (service_writes(make, one, is_html) for is_html in (True, False))
    assert text.startswith("Hello,\n")
    assert "None" not in html + text
    assert "You may also like" not in html + text
    assert "<img" not in html
    assert 'href=""' not in html
    assert "See it" not in html + text


def test_customers_without_a_letter_or_an_address_are_left_out_and_told():
    letters = [
        letter("ok"),
        nothing("empty"),
        letter("none", None),
        letter("blank", "  "),
        letter("bad", "a@b"),
        letter("twice", "OK@customers.test"),
        letter("gone", "gone@customers.test"),
        letter("Gone2"),
    ]
    selection = select(letters, {"gone@customers.test", "gone2"})
    assert [one.address for one in selection.posted] == ["ok@customers.test"]
    assert dict(selection.left_out) == {
        "nothing to recommend": ["empty"],
        "no address": ["none", "blank"],
        "an address that mail services refuse": ["bad"],
        "the address of another customer of the list": ["twice"],
        "on the suppression list": ["gone", "Gone2"],
    }


def test_the_suppression_list_counts_in_a_dry_run_too(tmp_path):
    (tmp_path / "no.txt").write_text("# asked by phone\n U1@CUSTOMERS.test \n\nu2\n")
    files = SendGrid(suppression=str(tmp_path / "no.txt")).write([letter(f"u{i}") for i in range(4)], tmp_path / "out")
    body = json.loads(files[0].read_text())
    assert [one["to"][0]["email"] for one in body["personalizations"]] == ["u0@customers.test", "u3@customers.test"]
    with pytest.raises(ConfigError, match=r"delivery\.suppression: cannot read"):
        SendGrid(suppression=str(tmp_path / "lost.txt")).write([], tmp_path)


@pytest.mark.parametrize("one", HARD, ids=lambda one: one.recipient.user)
def test_no_name_can_add_a_header_to_a_message(one):
    plain = parsed(letter("h")).keys()
    message = parsed(one)
    assert message.keys() == plain
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert message["To"].addresses[0].addr_spec == one.recipient.email
    assert len(message["To"].addresses) == 1
    raw = Eml().message(one, one.email).as_bytes()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_at_all_can_add_a_header(text):
    one = letter("u", name=text, first_name=text)
    message = parsed(one)
    assert message.keys() == parsed(letter("u")).keys()
    assert "Bcc" not in message
    body = SendGrid().payload([posted(one)], "m", "b")
    assert mail_send_faults(body) == []


def test_a_message_says_what_the_letter_says():
    one = letter("u 1/ü", "ann@customers.test", SCRIPT, "Ann Öz")
    message = parsed(one, sender="hello@shop.test", sender_name="Läden & Söhne", reply_to="help@shop.test")
    assert str(message["Subject"]) == f"Another look? {SCRIPT}"
    assert message["From"].addresses[0].display_name == "Läden & Söhne"
    assert message["To"].addresses[0].display_name == "Ann Öz"
    assert str(message["Reply-To"]) == "help@shop.test"
    assert message["Date"].datetime.isoformat() == one.generated_at
    assert message["List-Unsubscribe"] == "<https://shop.example/unsubscribe?user=u%201%2F%C3%BC>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    text, html = (part.get_content() for part in message.iter_parts())
    assert text.splitlines() == one.email.text.splitlines()
    assert html.rstrip() == one.email.html


def test_a_long_link_to_unsubscribe_stays_whole():
    message = Eml().message(letter("x" * 400), letter("x").email).as_bytes()
    assert b"List-Unsubscribe: <https://shop.example/unsubscribe?user=" + b"x" * 400 + b">\r\n" in message


def test_messages_are_the_same_each_time_and_lie_inside_the_folder(tmp_path):
    letters = [letter("../../etc/passwd"), letter("a/b"), letter("A%2Fb"), nothing("none"), letter("unknown", None)]
    first = {path.name: path.read_bytes() for path in Eml().write(letters, tmp_path / "1")}
    second = {path.name: path.read_bytes() for path in Eml().write(letters, tmp_path / "2")}
    assert first == second
    assert len(first) == 4
    assert {path.name for path in (tmp_path / "1").iterdir()} == first.keys()
    assert b"\r\nTo:" not in first["unknown.eml"]


@given(st.emails())
def test_addresses_that_services_take_are_those_of_the_standard(address):
    local, _, domain = address.partition("@")
    fits = len(local) <= 64 and not re.search(r"\.\d+$", domain) and len(address) <= 254
    assert is_address(address) == fits


NO_ADDRESSES = (
    *("", "a", "a@", "@b.de", "a@b", "a b@c.de", "a@b.de\n", "a@b.de\r\nBcc: c@d.de", "a..b@c.de", ".a@b.de", "a@-b.de"),
    *("ä@b.de", "a@b.de,c@d.de", "<a@b.de>", "a@127.0.0.1", "x" * 65 + "@b.de"),
)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text):
    assert not is_address(text)


@given(st.text(), st.integers(1, 40))
def test_one_line_is_one_line_and_no_longer_than_asked(text, length):
    line = one_line(text, length)
    assert len(line) <= length
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f]", line)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sender": "a@b.de\r\nBcc: x@y.de"}, "sender: wanted an e-mail address"),
        ({"unsubscribe_url": "javascript:alert({user})"}, "unsubscribe_url"),
        ({"base_url": "http://api.sendgrid.com"}, "base_url"),
        ({"base_url": "https://me:secret@api.sendgrid.com"}, "base_url"),
        ({"batch_size": 1001}, "batch_size: the service takes 1000 at most"),
        ({"categories": ["a"] * 11}, "categories"),
        ({"template_id": "welcome"}, "template_id"),
        ({"sendr": 1}, "no such option. Did you mean 'sender'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        construct({"_target_": "recsys.delivery.sendgrid.SendGrid", **settings}, "delivery")


@pytest.mark.parametrize("member", [path.stem for path in sorted((CONFIGS / "delivery").glob("[!_]*.yaml"))])
def test_every_channel_composes_builds_and_lists_all_its_options(member):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("emails", [f"delivery={member}"]), resolve=True)["delivery"]
    channel = construct(config, "delivery")
    assert {field.name for field in fields(type(channel)) if field.init} == set(config) - {"_target_"}
    assert channel.settings() == type(channel)().settings()


def test_an_audience_has_room_for_so_many_fields():
    with pytest.raises(ConfigError, match=r"items=20 with reasons=2 want \d+ merge fields"):
        construct({"_target_": "recsys.delivery.mailchimp.Mailchimp", "items": 20}, "delivery")


def test_recipients_are_compared_without_case():
    same = [letter("a", "Ann@customers.test"), letter("b", "ann@CUSTOMERS.test")]
    assert len(select(same).posted) == 1
