from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.models.selection import Named, Tag, parse, resolve, unmatched

MODELS = [
    Named("dummy", ("dummies", "quick")),
    Named("dummy_args", ("dummies",)),
    Named("dummy3/dummy_3", ("three",)),
    Named("dummy3/other", ("three", "quick")),
    Named("MAD/llama3", ("llama",)),
]
printable = st.text("\\'\",: =$`a") | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF))


def selected(*values: str) -> list[str]:
    tags = resolve(parse(values), MODELS)
    return [model.name for model in MODELS if any(tag.matches(model) for tag in tags)]


def single_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def double_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def backslashed(text: str) -> str:
    return "".join(f"\\{character}" for character in text)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("dummy", ["dummy"]),
        ("dummies", ["dummy", "dummy_args"]),
        ("all", [model.name for model in MODELS]),
        ("dummy3/dummy_3", ["dummy3/dummy_3"]),
        ("dummy3/three", ["dummy3/dummy_3", "dummy3/other"]),
        ("dummy3/quick", ["dummy3/other"]),
        ("dummy3/all", ["dummy3/dummy_3", "dummy3/other"]),
        ("dummy_3", []),
        ("DUMMY", []),
        ("dum*", []),
        ("dummy3", []),
        ("dummy3/", []),
        ("dummy,llama", ["dummy", "MAD/llama3"]),
        (" dummy , , llama ,", ["dummy", "MAD/llama3"]),
    ],
)
def test_a_selector_names_a_model_a_tag_a_scope_or_all(value: str, names: list[str]) -> None:
    assert selected(value) == names


def test_a_model_that_several_tags_name_is_selected_once() -> None:
    assert selected("dummy,dummies", "quick") == ["dummy", "dummy_args", "dummy3/other"]


def test_tags_that_are_written_twice_are_one() -> None:
    assert len(parse(["a,b", "b", "a"])) == 2


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ("dummy:batch=512:fp16", "--batch 512 --fp16"),
        ("dummy: batch=512 :: fp16:", "--batch 512 --fp16"),
        ("dummy:expr=a=b", "--expr a=b"),
        ("dummy:empty=", "--empty ''"),
        ('dummy:sizes="1,2"', "--sizes 1,2"),
        ("dummy:sizes=1\\,2", "--sizes 1,2"),
        ("dummy:url='http://x:80/'", "--url http://x:80/"),
        ("dummy:text=two words", "--text 'two words'"),
        ("dummy:v=$(touch x)", "--v '$(touch x)'"),
        ("dummy:$(touch x)", "'--$(touch x)'"),
        ("dummy", ""),
    ],
)
def test_pieces_behind_the_selector_become_arguments(value: str, arguments: str) -> None:
    (tag,) = parse([value])
    assert (tag.selector, tag.arguments) == ("dummy", arguments)


@pytest.mark.parametrize("quote", [single_quoted, double_quoted, backslashed])
@settings(deadline=None, max_examples=60)
@given(value=printable)
def test_any_value_can_be_written_quoted(quote: object, value: str) -> None:
    assert callable(quote)
    if quote is backslashed:
        value = value.strip() or "x"
    tags = parse([f"first,m:x={quote(value)}:flag,last"])
    assert [tag.selector for tag in tags] == ["first", "m", "last"]
    assert tags[1].args == (f"x={value}", "flag")
    assert shlex.split(tags[1].arguments) == ["--x", value, "--flag"]


@settings(deadline=None, max_examples=60)
@given(st.lists(printable))
def test_any_text_is_parsed_or_refused(values: list[str]) -> None:
    try:
        tags = parse(values)
    except FaultsError:
        tags = []
    assert all(tag.text.strip() for tag in tags)


@pytest.mark.parametrize("value", ["m:x='1", 'm:x="1', "m:x=1\\", "it's"])
def test_open_quotes_are_a_users_error(value: str) -> None:
    with pytest.raises(FaultsError, match="closed quotes"):
        parse([value])


def test_the_wikis_scoped_tag_with_arguments_means_the_scope() -> None:
    (tag,) = resolve(parse(["dummy3:dummy_3:batch=512"]), MODELS)
    assert tag == Tag("dummy3:dummy_3:batch=512", "dummy3/dummy_3", ("batch=512",))
    assert selected("dummy3:dummy_3:batch=512") == ["dummy3/dummy_3"]
    assert selected("dummy3:three") == ["dummy3/dummy_3", "dummy3/other"]


@pytest.mark.parametrize("value", ["dummy:dummy_3:batch=512", "dummy3:nothing", "dummy3:x=1"])
def test_a_flag_is_no_scope_where_no_such_folder_holds_it(value: str) -> None:
    (tag,) = parse([value])
    assert resolve([tag], MODELS) == [tag]


def test_a_tag_that_selects_nothing_is_reported_with_the_nearest_spelling() -> None:
    error = unmatched(parse(["dumy,all,llama,mad/all"]), MODELS)
    assert error is not None
    assert [fault.nearest for fault in error.faults] == ["dummy", "MAD/all"]
    assert "'dumy' selects no model" in str(error)


def test_tags_that_all_select_something_are_no_error() -> None:
    assert unmatched(parse(["dummy,three"]), MODELS) is None


def test_a_tag_without_any_model_says_that_there_is_none() -> None:
    assert "no model was found at all" in str(unmatched(parse(["x"]), []))
