"""Streaming JSON gives what the standard library gives, and keeps what stands before a cut."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.inputs.logs.jsonscan import SKIP, Each, Loss, documents, head, skip

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=20,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), min_size=1, max_size=4)


def values(data, plan=None, spread=True):
    return [value for value, _ in documents(data, plan, spread)]


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.sampled_from([None, 2]), st.booleans(), st.sampled_from(["\n", "", "\r\n", "\n\n"]))
def test_documents_one_after_another_are_read_as_the_standard_library_reads_them(objects, indent, ascii_only, between):
    text = between.join(json.dumps(item, indent=indent, ensure_ascii=ascii_only) for item in objects)
    assert values(text.encode()) == objects


@settings(max_examples=100, deadline=None)
@given(OBJECTS, st.sampled_from([None, 1]))
def test_top_level_array_gives_its_elements(objects, indent):
    assert values(json.dumps(objects, indent=indent).encode()) == objects


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.integers(0, 10**6))
def test_cut_jsonl_keeps_the_whole_lines_and_tells_the_rest(objects, where):
    text = "".join(json.dumps(item) + "\n" for item in objects)
    cut = text[: where % len(text)]
    found = values(cut.encode())
    whole = cut.count("\n")
    assert found[:whole] == objects[:whole]
    rest = cut[cut.rfind("\n") + 1 :]
    if rest.strip() and rest != json.dumps(objects[whole]):
        assert isinstance(found[-1], Loss)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_skipping_ends_where_the_value_ends(value):
    data = json.dumps(value).encode()
    assert skip(data + b", 1", 0) == len(data)


def test_bare_words_of_python_are_read():
    (found,) = values(b'{"a": NaN, "b": Infinity, "c": -Infinity}')
    assert found["a"] != found["a"]
    assert (found["b"], found["c"]) == (float("inf"), float("-inf"))


def test_plan_skips_text_and_hands_over_elements():
    taken = []
    plan = {"text": SKIP, "list": Each(taken.append, lambda: len(taken)), "deep": {"text": SKIP}}
    data = b'{"text": "a \\" } ]", "list": [1, [2, 3],\n {"a": 4}], "deep": {"text": {"b": "}"}, "kept": 5}}'
    assert values(data, plan) == [{"list": 3, "deep": {"kept": 5}}]
    assert taken == [1, [2, 3], {"a": 4}]


def test_plan_gives_the_same_on_one_line_and_on_many():
    item = {"text": "x", "list": [1, 2], "rest": {"a": None}}
    results = []
    for data in (json.dumps(item).encode() + b"\n", json.dumps(item, indent=3).encode()):
        taken = []
        results.append((values(data, {"text": SKIP, "list": Each(taken.append)}), taken))
    assert results[0] == results[1]


def test_elements_before_a_cut_are_kept():
    taken = []
    ((loss, _),) = documents(b'{"x": 1, "list": [1, 2, 3', {"list": Each(taken.append)})
    assert isinstance(loss, Loss)
    assert loss.cut
    assert loss.partial["x"] == 1
    assert taken == [1, 2]  # the last number may go on behind the cut


def test_broken_line_does_not_take_the_next_one_with_it():
    found = values(b'{"a": 1}\n{"a": 2, "b": "\n{"a": 3}\n{"a": 4,}\n{"a": 5}\n')
    assert [item for item in found if not isinstance(item, Loss)] == [{"a": 1}, {"a": 3}, {"a": 5}]
    assert sum(isinstance(item, Loss) for item in found) == 2


def test_broken_element_of_an_array_with_a_line_each_does_not_take_the_rest_with_it():
    found = values(b'[{"a": 1},\n{"a": 2,,},\n{"a": 3}]')
    assert [item for item in found if not isinstance(item, Loss)] == [{"a": 1}, {"a": 3}]


def test_head_lists_paths_without_reading_on():
    found = head(b'{"a": {"b": [{"c": 1}]}, "d": "text", "e": 2.5}')
    assert found.kind == "object"
    assert found.paths == {"a": "", "a.b": "", "a.b.c": "1", "d": "text", "e": "2.5"}


def test_head_of_an_array_is_that_of_its_first_element():
    assert head(b'[{"a": 1}, {"b": 2}]').paths == {"a": "1"}


@pytest.mark.parametrize("data", [b"", b"   ", b"[]", b"[ ]\n"])
def test_nothing_gives_nothing(data):
    assert values(data) == []


@pytest.mark.parametrize("end", ["0.", "1e", "2.5E-", "tru", "-", "Infini"])
def test_end_inside_a_number_or_a_word_is_a_cut(end):
    ((loss, _),) = documents(f'{{"a": 1, "b": {end}'.encode())
    assert loss.cut
    assert "cut off" in loss.message
