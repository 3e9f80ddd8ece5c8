"""Ids at the doors of a mailing: users, contacts, the suppression list, the catalogue."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.delivery.audience import Audience
from recsys.delivery.eml import Eml
from recsys.delivery.language import Language
from recsys.delivery.letter import Email, Letter, Recipient
from recsys.delivery.products import Products
from recsys.delivery.recipients import read_suppressed
from recsys.errors import ConfigError, DataError
from recsys.features import FeatureSet
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History
from recsys.shop.events import EventLog
from recsys.shop.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import emails  # noqa: E402

DAY = 86_400_000
LARGE = 1_515_915_625_441_993_998


def model_of(users: list[object], items: list[object]) -> TwoStageRecommender:
    """A shop in which each user viewed each item."""
    n = len(users) * len(items)
    log = EventLog.build(
        np.repeat(np.array(users), len(items)),
        np.tile(np.array(items), len(users)),
        ["view"] * n,
        np.arange(n, dtype=np.int64) + 100 * DAY,
    )
    recommender = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder(), 30)
    return recommender.fit(Shop.of(log), 101 * DAY)


NUMBERS = [1001, 1002, 1003, 1004, 1005, LARGE]


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    return model_of(NUMBERS, [1, 2])


@pytest.fixture(scope="module")
def outputs(model: TwoStageRecommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    model.save(folder / "one" / "model")
    (folder / "one" / "metrics.json").write_text("{}")
    (folder / "one" / "config.yaml").write_text(yaml.safe_dump({"tracking": {"_target_": "recsys.tracking.NoTracking"}}))
    (folder / "one" / "run.json").write_text(json.dumps({"name": "one", "id": ""}))
    return folder


@pytest.fixture
def contacts(tmp_path: Path) -> Path:
    return lines(
        tmp_path / "contacts.csv",
        "user,email,first_name",
        *(f"{1001 + i},cust{i}@mail-shop.eu,Ann{i}" for i in range(5)),
    )


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


# --- users and contacts -----------------------------------------------------------------------------------------------


def test_a_customer_is_found_in_every_form_of_a_users_file(model: TwoStageRecommender, tmp_path: Path):
    path = lines(tmp_path / "ids.txt", "1001 ", "\t1002", "1003.0", "\u00a01004", str(LARGE), "1001.00")
    audience = Audience.of(str(path), model)
    assert audience.users.tolist() == ["1001", "1002", "1003", "1004", str(LARGE)]
    assert (audience.repeated, audience.unknown) == (1, {str(path): []})


def test_a_title_above_a_list_of_ids_is_told_as_unknown(model: TwoStageRecommender, tmp_path: Path):
    path = lines(tmp_path / "ids.txt", "customer_id", "1001", "1002")
    assert Audience.of(str(path), model).unknown == {str(path): ["customer_id"]}


def test_contacts_written_as_floats_belong_to_the_customers_of_a_segment(model: TwoStageRecommender, tmp_path: Path):
    path = lines(tmp_path / "contacts.csv", "user,email", "1001.0,ann@shop.de", " 1002 ,bob@shop.de", "77,eve@shop.de")
    audience = Audience.of("all", model, str(path))
    (block,) = audience.blocks(10)
    assert {each.user: each.email for each in block if each.email} == {"1001": "ann@shop.de", "1002": "bob@shop.de"}
    assert audience.unknown == {str(path): ["77"]}


def test_a_parquet_list_of_floats_is_told_by_row_where_digits_are_gone(model: TwoStageRecommender, tmp_path: Path):
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"user": [1001.0, None]}), path)
    with pytest.raises(DataError, match="row 2, column 'user': wanted an id, found nothing"):
        Audience.of(str(path), model)
    pq.write_table(pa.table({"user": [1001.0, float(LARGE)]}), path)
    with pytest.raises(
        DataError, match=r"row 2, column 'user': wanted an id with all its digits.*Send ids beyond 2\^53 as text"
    ):
        Audience.of(str(path), model)


def test_a_shop_that_holds_ids_as_text_knows_them_as_numbers(tmp_path: Path):
    model = model_of(["1001", "guest-1", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"], ["a"])
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"user": [1001, 7]}), path)
    assert Audience.of(str(path), model).unknown == {str(path): ["7"]}
    path = lines(tmp_path / "ids.txt", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "guest-1 ")
    assert Audience.of(str(path), model).unknown == {str(path): []}


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_the_catalogue_s_ids_are_the_shop_s_in_every_form(model: TwoStageRecommender, tmp_path: Path):
    path = lines(tmp_path / "products.csv", "id,name", "1.0,Lamp", " 2,Oil", "3,Ghost")
    products = Products.of(model, Language.load("en"), catalogue=str(path))
    assert {products[number].name for number in range(2)} == {"Lamp", "Oil"}
    assert products.unknown == ["3"]
    lines(path, "id,name", "1.0,Lamp", "1 ,Lamp")
    with pytest.raises(DataError, match="row 3, column 'id': '1' has an earlier row already"):
        Products.of(model, Language.load("en"), catalogue=str(path))


# --- the suppression list ---------------------------------------------------------------------------------------------

ROWS = {
    "cust0@mail-shop.eu,": {"cust0@mail-shop.eu"},
    "Cust0@Mail-Shop.EU;": {"cust0@mail-shop.eu"},
    "<cust2@mail-shop.eu>": {"cust2@mail-shop.eu"},
    "Ann <cust2@mail-shop.eu>": {"cust2@mail-shop.eu"},
    "mailto:cust2@mail-shop.eu": {"cust2@mail-shop.eu"},
    '"cust0@mail-shop.eu","Ann0","2026-06-01 10:00:00"': {"cust0@mail-shop.eu"},
    '"Ann0";"cust0@mail-shop.eu"': {"cust0@mail-shop.eu"},
    "cust0@mail-shop.eu;cust1@mail-shop.eu": {"cust0@mail-shop.eu", "cust1@mail-shop.eu"},
    "1001": {"1001"},
    "1001.0": {"1001"},
    " 1001\t": {"1001"},
    "1001,": {"1001"},
    "1001,,2026-06-01": {"1001,,2026-06-01", "1001"},
    "Guest-1": {"guest-1"},
    "6F9619FF-8B86-D011-B42D-00CF4FC964FF": {"6f9619ff-8b86-d011-b42d-00cf4fc964ff"},
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_suppression_list_names_its_customer(tmp_path: Path, row: str):
    assert read_suppressed(str(lines(tmp_path / "no.txt", "# by phone", row, "", " ; "))).names == ROWS[row]


def test_a_suppression_list_with_a_column_of_users_names_them_and_their_addresses(tmp_path: Path):
    path = lines(tmp_path / "no.csv", "email,User", "old@mail-shop.eu,1001.0", ",1002", '"cust2@mail-shop.eu"')
    assert read_suppressed(str(path)).names == {"old@mail-shop.eu", "1001", "1002", "cust2@mail-shop.eu"}


def test_an_id_without_its_digits_on_the_suppression_list_stops_everything(tmp_path: Path):
    path = lines(tmp_path / "no.txt", "1001", "1.51592E+18")
    with pytest.raises(ConfigError, match=r"no\.txt, row 2: wanted an id with all its digits, found '1\.51592E\+18'"):
        read_suppressed(str(path))


def test_a_list_that_changed_is_read_again(tmp_path: Path):
    path = lines(tmp_path / "no.txt", "1001")
    assert read_suppressed(str(path)).names == {"1001"}
    lines(path, "1001", "1002")
    assert read_suppressed(str(path)).names == {"1001", "1002"}
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        read_suppressed(str(path))


def addressed(outputs: Path) -> list[str]:
    body = json.loads((outputs / "one" / "emails" / "sendgrid" / "sendgrid-001.json").read_text())
    return [one["to"][0]["email"] for one in body["personalizations"]]


def test_an_export_of_unsubscribed_customers_is_kept_and_the_dry_run_tells_it(
    outputs: Path, contacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    export = lines(
        tmp_path / "unsubscribed.csv",
        '"Email Address","First Name","UNSUB_TIME"',
        '"cust0@mail-shop.eu","Ann0","2026-06-01 10:00:00"',
        '"cust1@mail-shop.eu","Ann1","2026-06-01 10:00:00"',
    )
    command = [f"outputs={outputs}", f"users={contacts}", "delivery=sendgrid"]
    assert emails.main([*command, f"delivery.suppression={export}"]) == 0
    assert addressed(outputs) == ["cust2@mail-shop.eu", "cust3@mail-shop.eu", "cust4@mail-shop.eu"]
    printed = capsys.readouterr().out
    assert "left out: 2 on the suppression list (1001, 1002)" in printed
    assert 'suppression list: 1 of 3 rows name no customer ("Email Address","First Name","UNSUB_TIME")' in printed
    assert "WARNING" not in printed


def test_an_opt_out_by_number_counts_in_every_form_and_without_addresses(outputs: Path, tmp_path: Path):
    opted_out = lines(tmp_path / "no.txt", "1001.0", "1002 ", "1003,phone")
    assert emails.main([f"outputs={outputs}", "users=all", "delivery=sendgrid", f"delivery.suppression={opted_out}"]) == 0
    assert len(addressed(outputs)) == 3


def test_a_list_that_names_nobody_is_told_loudly_and_stops_the_sending(
    outputs: Path, contacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    wrong = lines(tmp_path / "no.csv", "name", "Ann0", "Ann1")
    command = [f"outputs={outputs}", f"users={contacts}", "delivery=sendgrid", f"delivery.suppression={wrong}"]
    assert emails.main(command) == 0
    printed = capsys.readouterr().out
    assert "suppression list: 3 of 3 rows name no customer (name, Ann0, Ann1)" in printed
    assert "WARNING: the suppression list names nobody" in printed
    monkeypatch.setenv("SENDGRID_API_KEY", "SG.not-a-real-key")
    settings = ("delivery.sender=hello@shop.de", f"delivery.template_id=d-{'1' * 32}")
    with pytest.raises(SystemExit):
        emails.main([*command, *settings, "--send"])
    error = capsys.readouterr().err
    assert "delivery.suppression: wanted addresses or ids of customers, found none in the 3 rows of" in error
    assert len(error.splitlines()) == 1


def test_a_list_of_addresses_is_not_doubted_while_no_address_is_known(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    gone = lines(tmp_path / "no.txt", "somebody@else.eu")
    assert emails.main([f"outputs={outputs}", "users=3", "delivery=sendgrid", f"delivery.suppression={gone}"]) == 0
    assert "suppression list" not in capsys.readouterr().out


def test_no_message_is_written_for_a_suppressed_customer(tmp_path: Path):
    email = Email("subject", "preheader", "<p>html</p>", "text", "See it", None)
    letters = [
        Letter(Recipient(user, f"{user}@mail-shop.eu"), "2026-05-03T08:00:00+00:00", (), email) for user in ("a", "b", "c")
    ]
    channel = Eml(suppression=str(lines(tmp_path / "no.txt", "A", "c@mail-shop.eu")))
    assert [path.name for path in channel.write(letters, tmp_path / "out")] == ["b.eml"]


# --- what the dry run tells -------------------------------------------------------------------------------------------


def test_the_dry_run_names_what_the_model_does_not_know_of_each_file(
    outputs: Path, contacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    users = lines(tmp_path / "ids.txt", "customer_id", "1001", *map(str, range(1, 7)))
    contacts.write_text(contacts.read_text() + "stranger,x@mail-shop.eu,\n")
    catalogue = lines(tmp_path / "products.csv", "id,name", "1,Lamp", "99,Ghost")
    command = [f"outputs={outputs}", f"users={users}", f"contacts={contacts}", f"delivery.catalogue={catalogue}"]
    assert emails.main(command) == 0
    printed = capsys.readouterr().out
    assert f"ids in {users} that the model does not know: 7 (customer_id, 1, 2, 3, 4, …)" in printed
    assert f"ids in {contacts} that the model does not know: 1 (stranger)" in printed
    assert f"ids in {catalogue} that the model does not know: 1 (99)" in printed
    assert emails.main([*command[:1], "users=2"]) == 0
    assert "does not know" not in capsys.readouterr().out


def test_the_dry_run_says_why_somebody_is_left_out(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    users = lines(tmp_path / "contacts.csv", "user,email", "1001,ann@shop.de", "1002,", "1003,ANN@shop.de", "77,eve@shop.de")
    assert emails.main([f"outputs={outputs}", f"users={users}", "delivery=sendgrid"]) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 no address (1002)" in printed
    assert "left out: 1 the address of another customer of the list (1003)" in printed
    assert "left out: 1 nothing to recommend (77)" in printed
