"""Letters for the tests of delivery: ordinary ones, and hard ones."""

from recsys.delivery.letter import Email, Letter, Product, Reason, Recipient, Recommended

SCRIPT = '<script>alert(1)</script> & "Öl"'
LONG = "ä" * 2048
RIGHT_TO_LEFT = "שמן זית כתית מעולה"
BREAKS = "Lamp\r\nBcc: thief@evil.test\r\n\r\n<b>x</b>"
ENCODED = "=?utf-8?q?Lamp=0D=0ABcc:_thief=40evil.test?="
MERGE = "*|UNSUB|* {{unsubscribe}} <%asm_group_unsubscribe_raw_url%>"
HARD_NAMES = [SCRIPT, LONG, RIGHT_TO_LEFT, BREAKS, ENCODED, MERGE, "Lamp\u2028Bcc: x\u0085y\x00", "🪔" * 300]


def letter(user: str, email: str | None = "", name: str = "Lamp", first_name: str | None = "Ann", price: str | None = "€3.00"):
    """A letter with three products, the first called `name`; an empty `email` makes one up."""
    reasons = (Reason("viewed", f"You looked at {name} 3 times", {"times": 3}), Reason("popular", "Popular this week", {}))
    recommended = tuple(
        Recommended(Product(f"i{n}", name if n == 1 else f"Item {n}", price, None, f"https://shop.test/{n}"), 100 - n, reasons)
        for n in (1, 2, 3)
    )
    body = Email(
        f"Another look? {name}", f"You looked at {name}", "<p>Lamp</p>", "Lamp\n.\nFrom here\n", "See it", "https://shop.test/1"
    )
    address = f"{user}@customers.test" if email == "" else email
    return Letter(Recipient(user, address, first_name), "2026-01-31T10:00:00+00:00", recommended, body)


def nothing(user: str) -> Letter:
    """A letter for a user with no recommendation."""
    return Letter(Recipient(user, f"{user}@customers.test"), "2026-01-31T10:00:00+00:00", (), None)
