"""What an audit found, one check at a time, and the certificate that says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, what was found in plain words, and the figures."""

    name: str
    outcome: Outcome
    finding: str
    evidence: dict[str, Any] = field(default_factory=dict)


def verdict(checks: Sequence[Check]) -> str:
    """One line: what the certificate says."""
    failed = [check for check in checks if check.outcome == "fail"]
    if failed:
        return f"LEAKS: {failed[0].finding}"
    warned = [check.name for check in checks if check.outcome == "warn"]
    return "no leak found" + (f"; look at: {', '.join(warned)}" if warned else "")


def certificate(checks: Sequence[Check], about: Mapping[str, object]) -> dict[str, Any]:
    """The certificate as plain values: verdict, what it is about (hashes and versions), each check with its evidence."""
    plain = [{"name": c.name, "outcome": c.outcome, "finding": c.finding, "evidence": c.evidence} for c in checks]
    clean = not any(check.outcome == "fail" for check in checks)
    return {"format": 1, "clean": clean, "verdict": verdict(checks), **about, "checks": plain}
