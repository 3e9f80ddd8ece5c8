"""Letters as customers and other programs get them: hard names, missing parts, the files of a run, the command."""

import json
import re
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from esp_standin import StandIn
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, log_of
from omegaconf import OmegaConf

from recsys.component import construct
from recsys.datasets.synthetic import Synthetic
from recsys.delivery import mailing, rendering
from recsys.delivery.audience import SEGMENTS, Audience
from recsys.delivery.channel import Channel
from recsys.delivery.document import Json, document, schema
from recsys.delivery.language import Language
from recsys.delivery.letter import Letter, Product, Reason, Recipient, Recommended
from recsys.delivery.letters import Writer, scaled
from recsys.delivery.products import Products, is_link, short
from recsys.delivery.rendering import EmailTemplate
from recsys.errors import ConfigError, DataError
from recsys.features import FeatureSet
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.reasons import CODES
from recsys.shop.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import emails  # noqa: E402

SCRIPT = '<script>alert(1)</script> & "Öl"'
LONG = "Größe " * 700
HEBREW = "שמן זית כתית מעולה"
INJECTED = "Lamp\r\nBcc: thief@evil.test\r\n\r\n\u2028\u0085\x00Hi"
HARD = (SCRIPT, LONG, HEBREW, INJECTED, "\u202egnp.exe", "{{ 7 * 7 }}{% raw %}", "=?utf-8?q?x=0D=0ABcc:y?=")
ENGLISH = Language.load("en")


class Page(HTMLParser):
    """What a client makes of HTML: its text, the tags, the links."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def model_of(names: dict[str, str | None], price: dict[str, float] | None = None) -> TwoStageRecommender:
    """A shop of items with these names; user 1 viewed them all, the first one last; user 2 is known and came to nothing."""
    ids, day = list(names), 86_400_000
    n = len(ids)
    log = EventLog.build(
        np.full(n, 1),
        np.array(ids, dtype=object),
        [VIEW] * n,
        np.arange(n, 0, -1).astype(np.int64) * 1000 + 100 * day,
    )
    frame = {"item": [], "time": [], "property": [], "value": []}
    for prop, values in (("name", names), ("price", price or {})):
        for item, value in values.items():
            if value is not None:
                for column, cell in zip(frame.values(), (item, 0, prop, str(value)), strict=True):
                    column.append(cell)
    catalogue = Catalogue.build(log.items, log.item_born, pd.DataFrame(frame), name="name", price="price")
    recommender = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder())
    return recommender.fit(Shop.of(log, catalogue), 101 * day)


def letter_of(
    names: dict[str, str | None], price: dict[str, float] | None = None, user: str = "1", **settings: object
) -> Letter:
    channel = Json(**{"items": len(names), **settings})
    return Writer(model_of(names, price), channel, "2026-05-03T08:00:00+00:00").write([Recipient(user, None, "Zoë")])[0]


@pytest.mark.parametrize("name", HARD)
def test_a_hard_name_is_right_in_html_text_and_json(name: str):
    letter = letter_of({"a": name, "b": "Lamp"}, {"a": 2.5})
    assert letter.email
    page = Page(letter.email.html)
    shown = letter.recommendations[0].product.name
    in_mail = short(shown, rendering.LONGEST_NAME)
    assert in_mail in page.text
    assert in_mail in letter.email.text
    assert not {"script", "mj-raw"} & set(page.tags)
    assert "<script" not in letter.email.html
    assert all(is_link(link) for link in page.links)
    for line in (letter.email.subject, letter.email.preheader, letter.email.cta_text, shown):
        assert line == " ".join(line.split())
        assert line.isprintable() or re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e]+", line)
    assert len(letter.email.html.encode()) < 100_000
    assert len(letter.email.subject) < 80
    again = json.loads(json.dumps(document(letter), ensure_ascii=False))
    jsonschema.validate(again, schema())
    assert again["recommendations"][0]["item_name"] == shown


def test_json_keeps_a_long_name_whole_and_what_is_shown_of_a_plain_one():
    assert letter_of({"a": LONG}).recommendations[0].product.name == LONG.strip()
    assert letter_of({"a": SCRIPT}).recommendations[0].product.name == SCRIPT


def test_right_to_left_names_turn_nothing_around_them():
    letter = letter_of({"a": HEBREW, "b": "Lamp"})
    assert letter.email
    assert re.search(rf'dir="auto"[^>]*>{HEBREW}<', letter.email.html)
    assert f"\u2068{HEBREW}\u2069" in letter.email.subject


def test_a_missing_price_leaves_no_trace_and_a_price_is_written_in_its_currency():
    letter = letter_of({"a": "Lamp", "b": "Oil"}, {"b": 1234.5}, currency="GBP")
    assert [each.product.price for each in letter.recommendations] == [None, "£1,234.50"]
    assert letter.email
    for body in (Page(letter.email.html).text, letter.email.text):
        assert "£1,234.50" in body
        assert "None" not in body
        assert "nan" not in body
    assert document(letter)["recommendations"][0]["price"] is None
    assert Language.load("en").price(3, "CHF") == "CHF 3.00"


def test_a_product_without_a_name_is_an_item_with_its_number():
    letter = letter_of({"4711": None})
    assert letter.recommendations[0].product.name == "Item 4711"
    table = model_of({"4711": None}).products.set_column(2, "category", [["Kitchen"]])
    assert Products(table, ENGLISH)[0].name == "Item 4711 · Kitchen"
    assert Products(table.set_column(2, "category", [["342"]]), ENGLISH)[0].name == "Item 4711 · category 342"


def test_who_is_recommended_nothing_gets_no_mail_and_a_document_that_says_so(tmp_path: Path):
    letter = letter_of({"a": "Lamp"}, user="77")
    assert letter.email is None
    assert letter.recommendations == ()
    jsonschema.validate(document(letter), schema())
    (path,) = Json().write([letter], tmp_path)
    assert json.loads(path.read_text())["email"] is None


def test_html_and_text_say_the_same():
    letter = letter_of({"a": "Lamp", "b": "Oil", "c": "Salt"}, {"a": 1, "b": 2}, postal_address="Shop, 1 Road, Town")
    assert letter.email
    html, text = Page(letter.email.html).text, " ".join(letter.email.text.split())
    said = ["Hello Zoë,", "Lamp", "€1.00", "Oil", "€2.00", "Salt", "Shop, 1 Road, Town", "Unsubscribe", "See it in the shop"]
    said += [reason.text for each in letter.recommendations for reason in each.reasons[:1]]
    for words in said:
        assert words in html
        assert words in text
    for link in Page(letter.email.html).links:
        assert link in letter.email.text
    assert "https://shop.example/unsubscribe?user=1" in Page(letter.email.html).links


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "//evil.test", "http://", "https://a b", 'http://a"b']
)
def test_a_link_of_another_scheme_is_left_out(url: str):
    assert not is_link(url)
    product = Product("1", "Lamp", url=url, image=url)
    email = EmailTemplate(Json(), ENGLISH).fill(Recipient("1"), [Recommended(product, 100), Recommended(product, 50)])
    assert email
    assert email.cta_url is None
    assert Page(email.html).links == ["https://shop.example/unsubscribe?user=1"]


def test_pictures_and_links_are_there_where_they_are_known():
    seen = [
        Product("1", "Lamp", None, "https://i.test/1.png", "https://s.test/1"),
        Product("2", "Oil", None, "https://i.test/2.png"),
    ]
    for products in (seen, seen[::-1]):
        email = EmailTemplate(Json(), ENGLISH).fill(Recipient("1"), [Recommended(product, 100) for product in products])
        assert email
        page = Page(email.html)
        assert set(page.links) == {"https://i.test/1.png", "https://i.test/2.png", "https://s.test/1", *page.links[-1:]}
        assert page.tags.count("img") == 2
        assert "mj-raw" not in page.tags


def test_ids_in_links_are_encoded():
    letter = letter_of({'a/../b?x="&y': "Lamp"}, user="1")
    assert letter.recommendations[0].product.url == "https://shop.example/products/a%2F..%2Fb%3Fx%3D%22%26y"


def test_a_mail_of_many_long_products_stays_below_what_clients_clip():
    reason = Reason("viewed", "ß" * 500, {})
    link = "https://shop.test/" + "a" * 1900
    many = [Recommended(Product(str(n), "名" * 4000, "€1", link, link), 100 - n, (reason, reason)) for n in range(60)]
    email = EmailTemplate(Json(), ENGLISH).fill(Recipient("1", None, "N" * 5000), many)
    assert email
    assert 40_000 < len(email.html.encode()) < 100_000


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=80), min_size=1, max_size=3))
def test_no_text_breaks_out_of_its_place(names: list[str]):
    recommended = [
        Recommended(Product(str(i), name, name, None, None), 100 - i, (Reason("viewed", name, {}),))
        for i, name in enumerate(names)
    ]
    template = EmailTemplate(Json(), ENGLISH)
    email, plain = (
        template.fill(Recipient("1", None, first), those)
        for first, those in (
            (names[0], recommended),
            ("x", [Recommended(Product("1", "x", "x"), 1, (Reason("viewed", "x", {}),)) for _ in names]),
        )
    )
    assert email
    assert plain
    if all(name.strip() for name in names):
        assert Page(email.html).tags == Page(plain.html).tags
    for line in (email.subject, email.preheader):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)


def test_the_schema_is_valid_and_knows_every_code_and_refuses_what_is_not_published():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert set(schema()["$defs"]["code"]["enum"]) == set(CODES)
    assert all(f"reasons.{code}" in ENGLISH for code in CODES)
    good = document(letter_of({"a": "Lamp"}))
    for path, bad in [
        (("email", "subject"), "x\r\nBcc: y"),
        (("recommendations", 0, "score"), 101),
        (("recommendations", 0, "url"), "javascript:x"),
        (("surprise",), 1),
    ]:
        values = json.loads(json.dumps(good))
        place = values
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = bad
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values, schema())


def test_scores_fall_from_100_in_proportion():
    ranking = Ranking(
        np.array([[3, 5, 4], [9, -1, -1]], np.int32), np.array([[2.0, 1.0, 0.5], [7, -np.inf, -np.inf]], np.float32)
    )
    pool = CandidatePool.from_rankings(
        {"one": Ranking(np.array([[3, 5, 4, 6], [9, -1, -1, -1]], np.int32), np.zeros((2, 4), "f4"))}
    )
    score = np.array([2.0, 0.5, 1.0, 0.0, 7.0], dtype=np.float32)
    assert scaled(ranking, pool, score).tolist() == [[100, 50, 25], [100, 0, 0]]


# --- products ---------------------------------------------------------------------------------------------------------


def test_the_file_of_products_stands_over_what_the_model_knows(tmp_path: Path):
    path = tmp_path / "products.csv"
    path.write_text(
        "id,name,price,image,url,category\n1,Lamp,2.5,https://i.test/1.png,https://s.test/1,Light\n2,,,,,\n99,Ghost,1,,,\n"
    )
    products = Products.of(model_of({"1": "OLD", "2": "Oil"}, {"2": 3}), ENGLISH, "EUR", None, str(path))
    number = {products[i].id: products[i] for i in range(2)}
    assert number["1"] == Product("1", "Lamp", "€2.50", "https://i.test/1.png", "https://s.test/1", "Light")
    assert number["2"] == Product("2", "Oil", "€3.00")
    assert products.unknown == ["99"]


def test_links_that_the_model_knows_are_shown_if_they_are_links():
    known = model_of({"1": "Lamp", "2": "Oil"}).products
    links = {"image": ["https://i.test/1.png", "1.png"], "url": ["javascript:alert(1)", None]}
    for name, values in links.items():
        known = known.append_column(name, [values])
    products = Products(known, ENGLISH)
    assert [(products[i].image, products[i].url) for i in range(2)] == [("https://i.test/1.png", None), (None, None)]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ("1,javascript:alert(1),1", r"row 2, column 'url': wanted an http or https address.*javascript"),
        ("1,https://s.test,-2", r"row 2, column 'price': wanted 0 or more, found -2"),
        ("1,https://s.test,two", r"row 2, column 'price'.*'two'"),
        ("1,https://s.test,1\n1,https://s.test,1", r"row 3, column 'id': '1' has an earlier row"),
        (",https://s.test,1", r"row 2, column 'id'"),
    ],
)
def test_a_bad_cell_of_the_catalogue_is_named(tmp_path: Path, rows: str, wanted: str):
    path = tmp_path / "products.csv"
    path.write_text(f"id,url,price\n{rows}\n")
    with pytest.raises(DataError, match=wanted):
        Products.of(model_of({"1": None}), ENGLISH, catalogue=str(path))


def test_what_a_model_knew_of_its_products_is_saved_with_it(tmp_path: Path):
    model = model_of({"1": "Lamp", "2": None}, {"2": 3.25})
    model.save(tmp_path / "model")
    loaded = TwoStageRecommender.load(tmp_path / "model")
    assert loaded.products.equals(model.products)
    assert set(map(tuple, zip(*(loaded.products[c].to_pylist() for c in ("id", "name", "price")), strict=True))) == {
        ("1", "Lamp", None),
        ("2", None, 3.25),
    }
    (tmp_path / "model" / "products.parquet").unlink()
    assert TwoStageRecommender.load(tmp_path / "model").products["name"].to_pylist() == [None, None]


# --- language ---------------------------------------------------------------------------------------------------------


def test_a_translation_is_a_file_and_lacks_nothing(tmp_path: Path):
    texts = yaml.safe_load((ROOT / "recsys/delivery/texts/en.yaml").read_text())
    texts |= {"code": "de", "decimal": ",", "thousands": ".", "price": "{{ amount }} {{ symbol }}"}
    texts["email"]["greeting"] = "Hallo {{ first_name }},"
    path = tmp_path / "de.yaml"
    path.write_text(yaml.safe_dump(texts))
    letter = letter_of({"a": "Lamp"}, {"a": 1234.5}, language=str(path))
    assert letter.recommendations[0].product.price == "1.234,50 €"
    assert letter.email
    assert letter.email.text.startswith("Hallo Zoë,")
    assert 'lang="de"' in letter.email.html
    del texts["email"]["greeting"], texts["reasons"]["viewed"]
    path.write_text(yaml.safe_dump(texts))
    with pytest.raises(ConfigError, match=r"lacks reasons\.viewed, email\.greeting"):
        Language.load(str(path))
    with pytest.raises(ConfigError, match="Did you mean 'en'"):
        Language.load("eng")


# --- whom to write to -------------------------------------------------------------------------------------------------


def test_segments_by_hand():
    day, t = 86_400_000, 200
    rows = [
        ("a", 1, BUY, 100),
        ("b", 1, CART, 150),
        ("b", 1, BUY, 160),
        ("c", 1, CART, 150),
        ("d", 1, VIEW, 195),
        ("e", 2, CART, 190),
        ("e", 2, BUY, 180),
    ]
    log = log_of(rows, day)
    model = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder())
    model.fit(Shop.of(log), t * day)
    chosen = {name: "".join(sorted(Audience.of(name, model).users.tolist())) for name in SEGMENTS}
    assert chosen == {"all": "abcde", "buyers": "abe", "active": "de", "lapsed": "a", "carted": "ce"}
    assert Audience.of(3, model).users.tolist() == ["d", "e", "b"]
    assert [[r.user for r in block] for block in Audience.of("3", model).blocks(2)] == [["d", "e"], ["b"]]
    for wrong in ("0", "lapse", "-3"):
        with pytest.raises(ConfigError, match="wanted a number of at least 1, a file, or a segment"):
            Audience.of(wrong, model)


def test_a_file_of_customers(tmp_path: Path):
    model = model_of({"a": None})
    ids, table = tmp_path / "ids.txt", tmp_path / "customers.csv"
    ids.write_text("1\n7\n1\n")
    audience = Audience.of(str(ids), model)
    assert audience.users.tolist() == ["1", "7"]
    assert audience.repeated == 1
    table.write_text("user,email,first_name\n1,ann@customers.test,Ann\n2,,\n")
    assert next(Audience.of(str(table), model).blocks(9)) == [Recipient("1", "ann@customers.test", "Ann"), Recipient("2")]
    assert next(Audience.of(1, model, str(table)).blocks(9)) == [Recipient("1", "ann@customers.test", "Ann")]
    table.write_text("user,email\n1,ann@x\r\n")
    with pytest.raises(DataError, match=r"row 2, column 'email': 'ann@x' is not an e-mail address"):
        Audience.of(str(table), model)
    table.write_text("customer,email\n1,a@b.test\n")
    with pytest.raises(DataError, match="header with the column 'user'"):
        Audience.of(str(table), model)


# --- the command ------------------------------------------------------------------------------------------------------


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("emails", list(overrides)), resolve=True)


@pytest.mark.parametrize("member", sorted(p.stem for p in (ROOT / "conf" / "delivery").glob("[!_]*.yaml")))
def test_every_channel_builds_and_lists_its_options(member: str):
    config = composed(f"delivery={member}")
    order, channel = mailing.Order.of(config)
    assert {field.name for field in fields(type(channel)) if field.init} == set(config["delivery"]) - {"_target_"}
    assert {field.name for field in fields(order)} == set(config) - {"delivery"}
    assert isinstance(construct(config["delivery"]), Channel)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model that knows a small shop."""
    folder = tmp_path_factory.mktemp("outputs")
    shop = Synthetic(scale=0.003, seed=3).load()
    model = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder(), 30)
    model.fit(shop, int(shop.log.time[-1])).save(folder / "one" / "model")
    (folder / "one" / "metrics.json").write_text("{}")
    (folder / "one" / "config.yaml").write_text(yaml.safe_dump({"tracking": {"_target_": "recsys.tracking.NoTracking"}}))
    (folder / "one" / "run.json").write_text(json.dumps({"name": "a <run>", "id": ""}))
    return folder


def test_the_command_writes_documents_and_a_gallery(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert emails.main([f"outputs={outputs}", "users=7", "generated_at=2026-05-03T08:00:00+00:00"]) == 0
    folder = outputs / "one" / "emails" / "json"
    documents = sorted(folder.glob("recommendation_*.json"))
    assert len(documents) == 7
    for path in documents:
        jsonschema.validate(json.loads(path.read_text()), json.loads((folder / "recommendation.schema.json").read_text()))
    page = Page((folder / "index.html").read_text())
    assert page.tags.count("article") == 7
    assert "script" not in page.tags
    assert not page.links
    assert "a <run>" in page.text
    printed = capsys.readouterr().out
    assert "7 letters, 7 files" in printed
    assert all(json.loads(path.read_text())["visitor_id"] in printed for path in documents)
    assert "delivery=sendgrid" in printed.splitlines()[-1]
    before = {path.name: path.read_bytes() for path in documents}
    assert emails.main([f"outputs={outputs}", "users=7", "block=2", "generated_at=2026-05-03T08:00:00+00:00"]) == 0
    blocks = sorted(folder.glob("0000*/recommendation_*.json"))
    assert {path.name: path.read_bytes() for path in blocks} == before
    assert sorted(path.parent.name for path in blocks) == ["00001"] * 2 + ["00002"] * 2 + ["00003"] * 2 + ["00004"]
    assert not list(folder.glob("recommendation_*.json"))


def test_payloads_can_be_looked_at_before_addresses_are_known(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert emails.main([f"outputs={outputs}", "users=3", "delivery=sendgrid"]) == 0
    (request,) = (outputs / "one" / "emails" / "sendgrid").glob("sendgrid-*.json")
    to = [each["to"][0]["email"] for each in json.loads(request.read_text())["personalizations"]]
    assert len(to) == 3
    assert all(address.endswith("@customer.invalid") for address in to)
    printed = capsys.readouterr().out
    assert "stand-ins" in printed
    assert "--send" in printed.splitlines()[-1]


def test_nothing_is_sent_with_a_channel_that_writes_files(outputs: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        emails.main([f"outputs={outputs}", "users=2", "--send"])
    assert "only writes files" in capsys.readouterr().err


def test_send_mails_each_known_address_once(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    known = Audience.of(3, TwoStageRecommender.load(outputs / "one" / "model")).users.tolist()
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("user,email\n" + "".join(f"{user},u{user}@customers.test\n" for user in known[:2]))
    monkeypatch.setenv("SENDGRID_API_KEY", "SG.not-a-real-key")
    with StandIn("SG.not-a-real-key") as server:
        settings = {
            "outputs": outputs,
            "users": 3,
            "contacts": contacts,
            "delivery": "sendgrid",
            "delivery.sender": "hello@shop.de",
            "delivery.base_url": server.url,
            "delivery.template_id": "d-" + "1" * 32,
        }
        command = [*(f"{key}={value}" for key, value in settings.items()), "--send"]
        assert emails.main(command) == 0
        assert sorted(one["email"] for one in server.mailed) == sorted(f"u{user}@customers.test" for user in known[:2])
        assert "2 letters sent" in capsys.readouterr().out
        assert emails.main(command) == 0
        assert len(server.mailed) == 2
    assert (outputs / "ledger.sqlite").is_file()
    kept = [path.read_bytes() for path in outputs.rglob("*") if path.is_file()]
    assert not any(b"not-a-real-key" in content for content in kept)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("user=3", "user: there is no such key. Did you mean 'users'?"),
        ("delivery.item=3", "delivery.item: there is no such key. Did you mean 'delivery.items'"),
        ("delivery=sengrid", "Did you mean 'sendgrid'"),
        ("block=0", "block: Input should be greater than 0, found 0"),
        ("delivery.currency=euro", "delivery.currency"),
        ("run=other", "other: no such run"),
        ("users=lapse", "Did you mean 'lapsed'"),
        ("delivery.language=xx", "delivery.language: there is no"),
        ("delivery.catalogue=none.csv", "none.csv does not exist"),
    ],
)
def test_a_mistake_is_told_in_one_line(outputs: Path, override: str, told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        emails.main([f"outputs={outputs}", override])
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
