from __future__ import annotations

from datetime import datetime, timezone
from email import message_from_bytes, policy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_madengine.errors import FaultsError
from pytest_madengine.reporting.csvtables import Found, Table
from pytest_madengine.reporting.mail import Envelope, message, page
from tests.golden import compare
from tests.reporting.told import EVIL

GOLDEN = Path(__file__).parent / "golden"
FOUND = Found(
    (
        Table("env.csv", ("name", ""), (("gpu", "8"),)),
        Table("perf.csv", ("model", "status"), (("llama", "SUCCESS"), (EVIL, "FAILURE"), ("größe", "SKIPPED"))),
    ),
    ("odd.csv: no UTF-8 text",),
)
NOW = datetime(2026, 3, 14, 15, 9, tzinfo=timezone.utc)


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def test_a_page_of_two_files() -> None:
    compare(page(FOUND), GOLDEN / "mail.html")


def test_a_page_runs_and_loads_nothing() -> None:
    made = Page(page(FOUND))
    assert not {"script", "style", "link", "img", "iframe", "form", "base"} & set(made.tags)
    assert not {"src", "href", "class", "id"} & {name for name, _ in made.attributes}
    assert not [name for name, _ in made.attributes if name.startswith("on")]


def test_every_cell_is_text() -> None:
    made = Page(page(FOUND, "<b>title</b>"))
    assert {EVIL, "llama", "größe", "<b>title</b>"} <= set(made.texts)
    assert made.tags.count("table") == 2
    assert "b" not in made.tags


def test_a_message_is_text_and_html_with_the_summary_in_both() -> None:
    envelope = Envelope("CI <ci@example.com>", ("a@example.com", "B <b@example.com>"), "Größe of models")
    parsed = message_from_bytes(message(FOUND, envelope, NOW).as_bytes(), policy=policy.default)
    assert parsed.get_content_type() == "multipart/alternative"
    assert (parsed["From"], parsed["To"]) == ("CI <ci@example.com>", "a@example.com, B <b@example.com>")
    assert (parsed["Subject"], parsed["Date"]) == ("Größe of models", "Sat, 14 Mar 2026 15:09:00 +0000")
    assert parsed["Message-ID"].endswith("@example.com>")
    text, html = (part.get_content() for part in parsed.iter_parts())
    for line in FOUND.lines:
        assert f"- {line}" in text.splitlines()
        assert line in Page(html).texts
    assert Page(html).tags.count("table") == 2


def test_no_line_is_longer_than_mail_allows() -> None:
    wide = Found((Table("a.csv", ("x",), (("y" * 5_000,),)),))
    assert max(map(len, message(wide, Envelope(), NOW).as_bytes().split(b"\r\n"))) <= 998


def test_without_a_sender_a_message_is_a_draft() -> None:
    made = message(FOUND, Envelope(), NOW)
    assert (made["X-Unsent"], made["From"], made["To"]) == ("1", None, None)


@pytest.mark.parametrize("text", ["nobody", "a@", "@b", "a b@c", "a@b\nBcc: x@y", "a@b\r\n", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(FaultsError, match="--to: found"):
        Envelope("ci@example.com", (text,))


def test_a_subject_cannot_bring_headers_along() -> None:
    with pytest.raises(FaultsError, match=r"--from.*\n--subject: found 'a\\nBcc: x@y'; valid: one line"):
        Envelope("ci", (), "a\nBcc: x@y")
