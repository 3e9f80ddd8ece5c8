"""What customers read, in one language: templates of a file in `texts/`, or of the shop's own."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recsys.errors import ConfigError, nearest

TEXTS = Path(__file__).parent / "texts"


class Language:
    """Sentences by dotted key, such as `reasons.in_cart`. They are plain text: whoever puts them into HTML escapes them."""

    def __init__(self, texts: Mapping[str, Any], name: str) -> None:
        self.code, self.direction = str(texts["code"]), str(texts["direction"])
        self._months, self._symbols, self._name = texts["months"], texts["symbols"], name
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)
        environment.filters |= {"date": self._date, "plural": self._plural}
        self._templates = {key: _compiled(environment, text, name, key) for key, text in _leaves(texts)}

    @classmethod
    def load(cls, name: str) -> "Language":
        """The language of a file: a name in `texts/`, or the path of a YAML file with the same keys as `en.yaml`.

        Raises `ConfigError` for a language that is not there, a key that is missing, a template that is wrong.
        """
        path = Path(name) if name.endswith((".yaml", ".yml")) else TEXTS / f"{Path(name).name}.yaml"
        if not path.is_file():
            raise ConfigError(f"delivery.language: there is no {path}.{nearest(name, [p.stem for p in TEXTS.glob('*.yaml')])}")
        try:
            texts, wanted = (yaml.safe_load(p.read_text(encoding="utf-8")) for p in (path, TEXTS / "en.yaml"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"delivery.language: {path} cannot be read: {error}") from None
        found = {key for key, _ in _leaves(texts)} | set(texts) if isinstance(texts, dict) else set()
        if missing := [key for key in [*wanted, *(key for key, _ in _leaves(wanted))] if key not in found]:
            raise ConfigError(f"delivery.language: {path} lacks {', '.join(missing)}")
        return cls(texts, str(path))

    def __contains__(self, key: str) -> bool:
        return key in self._templates

    def say(self, key: str, **values: Any) -> str:
        """The text of a key, filled in. `today` (ISO) among the values lets days of the same year go without it."""
        try:
            return self._templates[key].render(values).strip()
        except (TemplateError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"{self._name}: {key}: {error}") from None

    def price(self, amount: float, currency: str) -> str:
        """An amount in a currency by its ISO 4217 code."""
        text = f"{amount:,.2f}".translate({ord(","): self.say("thousands"), ord("."): self.say("decimal")})
        if currency in self._symbols:
            return self.say("price", symbol=self._symbols[currency], amount=text)
        return self.say("price_by_code", currency=currency, amount=text)

    @pass_context
    def _date(self, context: Context, iso: str) -> str:
        day = date.fromisoformat(iso)
        key = "date" if str(context.get("today", ""))[:4] == iso[:4] else "date_and_year"
        return self.say(key, day=day.day, month=self._months[day.month - 1], year=day.year)

    def _plural(self, n: int, *forms: str) -> str:
        return forms[int(self.say("plural", n=n))]


def _leaves(texts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every text with its dotted key."""
    found = []
    for name, value in texts.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            found.append((f"{prefix}{name}", value))
    return found


def _compiled(environment: ImmutableSandboxedEnvironment, text: str, name: str, key: str) -> Template:
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise ConfigError(f"{name}: {key}: {error}") from None
