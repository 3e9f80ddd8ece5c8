import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.redaction import hide, is_secret, known_secrets, redact

SECRET_NAMES = ["key", "api_key", "apiKey", "APIKey", "SENDGRID_API_KEY", "sendgrid.token", "Password", "client-secret"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_with_a_secret_word_is_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["monkey", "keyboard", "tokenizer", "n_tokens", "secretary", "passwordless", "turkey_shop", ""]
)
def test_a_word_that_only_holds_a_secret_word_is_not_secret(name):
    assert not is_secret(name)


def test_a_config_is_redacted_by_name_at_any_depth():
    config = {
        "mail": {"api_key": "abc", "retries": 3, "headers": [{"token": 12}, {"x": "y"}]},
        "secrets": {"a": "b", "c": ["d", None]},
        "password": None,
        "monkey": "george",
    }
    assert redact(config) == {
        "mail": {"api_key": "***", "retries": 3, "headers": [{"token": "***"}, {"x": "y"}]},
        "secrets": {"a": "***", "c": ["***", None]},
        "password": None,
        "monkey": "george",
    }


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail.api_key=abc def", "mail.api_key=***"),
        ("+mail.password='a b'", "+mail.password=***"),
        ("delivery={url: x, token: abc}", "delivery={url: x, token:***"),
        ("https://host/send?to=me&token=abc", "https://host/send?to=me&token=***"),
        ("ranker.learning_rate=0.1", "ranker.learning_rate=0.1"),
        ("dataset.monkey=1", "dataset.monkey=1"),
    ],
)
def test_text_after_a_secret_name_is_redacted(text, redacted):
    assert redact([text]) == [redacted]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://me:pa55@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:p@ss/word@host/db", "postgresql+psycopg://me:***@host/db"),
        ("redis://:pa55@host", "redis://:***@host"),
        ("clone https://ghp_abc@github.com/a/b failed", "clone https://***@github.com/a/b failed"),
        ("http://host:5000/#/runs/1", "http://host:5000/#/runs/1"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("write to me@host", "write to me@host"),
        ("KeyError: 'item'", "KeyError: 'item'"),
    ],
)
def test_free_text_loses_passwords_of_uris_only(text, hidden):
    assert hide(text) == hidden


def test_given_secrets_are_hidden_the_longest_first():
    assert hide("abc-and-more abc", {"abc", "abc-and-more"}) == "*** ***"


def test_known_secrets_are_of_the_config_and_of_the_environment(monkeypatch):
    monkeypatch.setenv("SENDGRID_API_KEY", "from-environment")
    monkeypatch.setenv("KEYBOARD", "not-a-secret")
    monkeypatch.setenv("PWD", "/home/me/shop")
    config = {
        "a": {"token": "from-config", "password": "short"},
        "uri": "mysql://me:from-a-uri@host/db",
        "n": "plain-text",
    }
    found = known_secrets(config)
    assert {"from-environment", "from-config", "from-a-uri"} <= found
    assert not {"not-a-secret", "short", "plain-text", "/home/me/shop"} & found


letters = st.characters(exclude_characters="XYZ")
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(letters, max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(plain, st.sampled_from(SECRET_NAMES), st.text("XYZ", min_size=6), st.integers(0, 3))
def test_a_secret_survives_nowhere(config, name, secret, depth):
    value = {"rest": config, name: secret, "list": [f"{name}={secret}", f"mysql://me:{secret}@host"]}
    for _ in range(depth):
        value = {"deeper": [value]}
    assert secret not in yaml.safe_dump(redact(value), allow_unicode=True).replace("\n", "")


@given(plain)
def test_redacting_twice_changes_nothing_more(config):
    once = redact(config)
    assert redact(once) == once


def test_other_objects_become_text(tmp_path):
    assert redact({"path": tmp_path}) == {"path": str(tmp_path)}
