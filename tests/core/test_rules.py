"""The rule language: three values, one meaning for one node and for many, and errors that say what to write."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.rules import Rule

# -- what the language means, written down once more for one node, without arrays ------------------------------------

Told = Mapping[str, Any]
Meaning = Callable[[Told], Any]
Written = tuple[str, Meaning]

NAMES = ("load", "battery", "site", "partition_id")
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
SUMS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def plain(value: Any) -> float | str | None:
    """A value as the language sees it: a number, a text, or None for unknown."""
    if isinstance(value, str):
        return value
    return None if value is None or math.isnan(value) else float(value)


def compare(sign: str, a: Any, b: Any) -> bool | None:
    if a is None or b is None or isinstance(a, str) is not isinstance(b, str):
        return None
    return ORDERS[sign](a, b)


def truth(value: Any) -> bool | None:
    return None if value is None or isinstance(value, str) else value != 0


def number(sign: str, a: Any, b: Any) -> float | None:
    if not isinstance(a, float) or not isinstance(b, float):
        return None
    result = SUMS[sign](a, b) if sign in SUMS else (None if b == 0 else a / b if sign == "/" else a % b)
    return None if result is None or math.isnan(result) else result


def kleene_and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def kleene_not(a: bool | None) -> bool | None:
    return None if a is None else not a


def values() -> st.SearchStrategy[Written]:
    """A number or a text, as written and as meant."""
    floats = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 7.0])
    texts = st.sampled_from(["", "hall", "edge-0"])
    leaves = st.one_of(
        floats.map(lambda x: (repr(x), lambda told: x)),
        texts.map(lambda x: (repr(x), lambda told: x)),
        st.sampled_from(NAMES).map(lambda name: (name, lambda told: plain(told.get(name)))),
        st.sampled_from(NAMES).map(lambda name: (f"prop({name!r})", lambda told: plain(told.get(name)))),
    )

    def sums(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
        def build(a: Written, sign: str, b: Written) -> Written:
            return f"({a[0]} {sign} {b[0]})", lambda told: number(sign, a[1](told), b[1](told))

        return st.builds(build, inner, st.sampled_from(["+", "-", "*", "/", "%"]), inner)

    return st.recursive(leaves, sums, max_leaves=4)


def conditions() -> st.SearchStrategy[Written]:
    def chain(a: Written, first: str, b: Written, second: str, c: Written) -> Written:
        def meaning(told: Told) -> bool | None:
            x, y, z = a[1](told), b[1](told), c[1](told)
            return kleene_and(compare(first, x, y), compare(second, y, z))

        return f"({a[0]} {first} {b[0]} {second} {c[0]})", meaning

    def single(a: Written, sign: str, b: Written) -> Written:
        return f"({a[0]} {sign} {b[0]})", lambda told: compare(sign, a[1](told), b[1](told))

    def member(a: Written, items: list[Any], inside: bool) -> Written:
        def meaning(told: Told) -> bool | None:
            found: bool | None = False if items or a[1](told) is not None else None
            for item in items:
                found = kleene_not(kleene_and(kleene_not(found), kleene_not(compare("==", a[1](told), plain(item)))))
            return found if inside else kleene_not(found)

        return f"({a[0]} {'in' if inside else 'not in'} {items!r})", meaning

    signs = st.sampled_from(list(ORDERS))
    items = st.lists(st.sampled_from([0.25, 1, -3, "hall", "edge-0"]), max_size=3)
    leaves = st.one_of(
        st.builds(single, values(), signs, values()),
        st.builds(chain, values(), signs, values(), signs, values()),
        st.builds(member, values(), items, st.booleans()),
        values().map(lambda a: (a[0], lambda told: truth(a[1](told)))),
        values().map(lambda a: (f"known({a[0]})", lambda told: a[1](told) is not None)),
        values().map(lambda a: (f"unknown({a[0]})", lambda told: a[1](told) is None)),
    )

    def joined(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
        def both(a: Written, b: Written) -> Written:
            return f"({a[0]} and {b[0]})", lambda told: kleene_and(a[1](told), b[1](told))

        def either(a: Written, b: Written) -> Written:
            def meaning(told: Told) -> bool | None:
                return kleene_not(kleene_and(kleene_not(a[1](told)), kleene_not(b[1](told))))

            return f"({a[0]} or {b[0]})", meaning

        negated = inner.map(lambda a: (f"(not {a[0]})", lambda told: kleene_not(a[1](told))))
        return st.one_of(st.builds(both, inner, inner), st.builds(either, inner, inner), negated)

    return st.recursive(leaves, joined, max_leaves=5)


told_values = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 1.0, 7.0, math.nan, math.inf]),
    st.sampled_from([0, 3, -1]),
    st.booleans(),
    st.sampled_from(["", "hall", "edge-0", "zoo"]),
    st.none(),
)
nodes_told = st.lists(st.dictionaries(st.sampled_from(NAMES), told_values), min_size=1, max_size=6)


def as_objects(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    columns = {}
    for name in NAMES:
        columns[name] = np.empty(len(rows), dtype=object)
        columns[name][:] = [row.get(name) for row in rows]
    return columns


@settings(max_examples=300)
@given(conditions(), nodes_told)
def test_one_node_many_nodes_and_the_definition_agree_on_any_rule(written: Written, rows: list[dict[str, Any]]) -> None:
    text, meaning = written
    rule = Rule(text)
    expected = [meaning(row) for row in rows]
    assert [rule.holds(row) for row in rows] == [value is True for value in expected]
    assert rule.mask(as_objects(rows), len(rows)).tolist() == [value is True for value in expected]
    assert rule.unclear(as_objects(rows), len(rows)).tolist() == [value is None for value in expected]


@settings(max_examples=100)
@given(conditions(), conditions(), nodes_told)
def test_combined_rules_are_kleenes_and_or_not_and_survive_being_written_down(
    first: Written, second: Written, rows: list[dict[str, Any]]
) -> None:
    a, b = Rule(first[0]), Rule(second[0])
    for row in rows:
        x, y = first[1](row), second[1](row)
        assert (a & b).holds(row) == (kleene_and(x, y) is True)
        assert (a | b).holds(row) == (x is True or y is True)
        assert (~a).holds(row) == (x is False)
    for rule in (a, a & b, a | b, ~a, (a | b) & ~(b | a)):
        again = Rule(str(rule))
        assert again == rule
        assert hash(again) == hash(rule)
        assert repr(rule) == f"Rule(text={rule.text!r})"
        assert (a & b).names == a.names | b.names


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=1, max_size=8))
def test_a_column_of_floats_and_one_of_objects_mean_the_same(loads: list[float]) -> None:
    rule = Rule("load < 0.5 or unknown(load)")
    objects = np.array([None if math.isnan(load) else load for load in loads], dtype=object)
    assert (
        rule.mask({"load": np.array(loads)}, len(loads)).tolist() == rule.mask({"load": objects}, len(loads)).tolist()
    )


@settings(max_examples=300)
@given(st.text(alphabet="abx01.%()[]'\"\\<>=!&|-+*/~ ,:and or not in known", max_size=40))
def test_any_text_is_a_rule_or_is_refused_with_a_config_error_and_a_rule_never_fails(text: str) -> None:
    try:
        rule = Rule(text)
    except ConfigError:
        return
    rule.holds({"a": 1.0, "b": "x", "x": None})
    assert Rule(str(rule)) == rule


# -- single cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told", "expected"),
    [
        ("battery >= 0.3 and load < 0.8", {"battery": 0.3, "load": 0.79}, True),
        ("battery >= 0.3 and load < 0.8", {"battery": 0.3}, False),
        ("battery >= 0.3 or load < 0.8", {"load": 0.5}, True),
        ("not load < 0.8", {}, False),
        ("load < 0.8 or unknown(load)", {}, True),
        ("known(site) and site != 'cellar'", {"site": "hall"}, True),
        ("0.2 <= load < 0.8", {"load": 0.2}, True),
        ("charging", {"charging": True}, True),
        ("charging == True", {"charging": True}, True),
        ("charging", {"charging": "yes"}, False),
        ("load < 'x'", {"load": 0.5}, False),
        ("load != 'x'", {"load": 0.5}, False),
        ("site in ('edge-0', 'edge-1')", {"site": "edge-1"}, True),
        ("site not in ('edge-0', 'edge-1')", {"site": "edge-2"}, True),
        ("site not in ('edge-0', 'edge-1')", {}, False),
        ("cpu_count * (1 - load) >= 2", {"cpu_count": 4, "load": 0.5}, True),
        ("partition_id % 2 == 0", {"partition-id": 4}, True),
        ("memory_free_bytes / memory_total_bytes > 0.1", {"memory_free_bytes": 1, "memory_total_bytes": 0}, False),
        ("prop('my own name!') == -1", {"my own name!": -1}, True),
        ("load > 1", {"load": 10**400}, False),
        ("load > 1", {"load": [2]}, False),
        ("load > 1", {"load": 2 + 0j}, False),
        ("load > 1", {"load": np.float32(2.0)}, True),
        ("flag", {"flag": np.True_}, True),
        ("True", {}, True),
        ("\n load > 0.1\n and load < 0.5 ", {"load": 0.3}, True),
    ],
)
def test_a_rule_holds_for_one_node_as_it_reads(text: str, told: dict[str, Any], expected: bool) -> None:
    assert Rule(text).holds(told) is expected


def test_names_with_hyphens_and_underscores_find_each_other_in_columns_too() -> None:
    column = np.array([0.0, 1.0, 2.0])
    assert Rule("partition_id > 0").mask({"partition-id": column}, 3).tolist() == [False, True, True]
    assert Rule("prop('partition-id') > 0").mask({"partition_id": column}, 3).tolist() == [False, True, True]
    both = {"partition_id": column, "partition-id": -column}
    assert Rule("partition_id > 0").mask(both, 3).tolist() == [False, True, True]


def test_columns_of_every_kind_are_read_and_those_that_are_nothing_are_unknown() -> None:
    columns = {
        "flag": np.array([True, False]),
        "count": np.array([1, 2], dtype=np.int8),
        "site": np.array(["hall", "zoo"]),
        "when": np.array(["2025-01-01", "2025-01-02"], dtype="datetime64[D]"),
        "mixed": np.array([np.int64(3), "three"], dtype=object),
    }
    assert Rule("flag").mask(columns, 2).tolist() == [True, False]
    assert Rule("count == 2").mask(columns, 2).tolist() == [False, True]
    assert Rule("site < 'i'").mask(columns, 2).tolist() == [True, False]
    assert Rule("unknown(when)").mask(columns, 2).tolist() == [True, True]
    assert Rule("mixed == 3 or mixed == 'three'").mask(columns, 2).tolist() == [True, True]
    assert Rule("mixed == 3").unclear(columns, 2).tolist() == [False, True]


def test_a_rule_without_names_and_a_column_nobody_sent_give_one_answer_per_node() -> None:
    assert Rule("1 < 2").mask({}, 3).tolist() == [True, True, True]
    assert Rule("load < 2").mask({}, 3).tolist() == [False, False, False]
    assert Rule("load < 2").mask({"load": np.zeros(0)}, 0).shape == (0,)


def test_a_mask_belongs_to_its_caller() -> None:
    mask = Rule("True").mask({}, 3)
    mask[0] = False
    assert Rule("True").mask({}, 3).all()


def test_a_column_of_another_length_is_refused_by_name_and_only_if_it_is_looked_at() -> None:
    columns = {"load": np.zeros(2), "position": np.zeros((3, 2))}
    with pytest.raises(ConfigError, match=r"column 'load' has shape \(2,\), expected \(3,\)"):
        Rule("load < 1").mask(columns, 3)
    with pytest.raises(ConfigError, match="column 'position' has shape"):
        Rule("position < 1").mask(columns, 3)
    assert Rule("battery < 1 or True").mask(columns, 3).all()


def test_the_facts_name_what_was_looked_at_and_what_was_not_told() -> None:
    rule = Rule("battery >= 0.3 and load < 0.8 and prop('app-id') == 'x'")
    assert rule.facts({"battery": 0.2, "app-id": "y", "more": 1}) == "app-id = 'y', battery = 0.2, load unknown"
    assert rule.names == {"battery", "load", "app-id"}


def test_rules_that_differ_in_spaces_and_brackets_only_are_equal() -> None:
    assert Rule("(load<0.8)and( battery>0.30 )") == Rule("load < 0.8 and battery > 0.3") != Rule("load < 0.8")
    assert Rule.of("load<1") == Rule("load < 1")
    assert Rule.of(rule := Rule("load < 1")) is rule


def test_a_rule_can_go_to_another_process_and_be_copied() -> None:
    rule = Rule("load < 0.8 and site in ('a', 'b')")
    for again in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):  # noqa: S301  our own bytes
        assert again == rule
        assert again.holds({"load": 0.1, "site": "a"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("battery >> 0.3", r"character 1 \('battery >> 0.3'\).*write '>='"),
        ("load < 1 && battery", r"character 10 \('&& battery'\).*write 'and'"),
        ("a || b", "write 'or'"),
        ("!a", "write 'not'"),
        ("load = 1", r"character 6.*write '=='"),
        ("a => 1", "write '>='"),
        ("a <> 1", "write '!='"),
        ("battery > 30%", "a share as a number from 0 to 1"),
        ("memory > 2 GB", "numbers without a unit"),
        ("partition-id == 3", r"write partition_id or prop\('partition-id'\), or with spaces 'partition - id'"),
        ("a-b-c > 1", r"prop\('a-b-c'\)"),
        ("load is None", r"unknown\(name\)"),
        ("load == None", r"unknown\(name\)"),
        ("knwon(load)", r"did you mean known\(…\)\?"),
        ("open('x')", "'open' is not a function of the language"),
        ("known(a, b)", r"known\(…\) takes one argument"),
        ("prop(load) > 1", "a name in quotes"),
        ("node.load > 1", r"prop\('node.load'\) or load"),
        ("told['load'] > 1", r"prop\('load'\)"),
        ("charging == true", "write True"),
        ("site in sites", r"write in \('edge-0', 'edge-1'\)"),
        ("site in (a, b)", "literals only"),
        ("(1, 2) == a", "after 'in' only"),
        ("a if b else c", "IfExp is not in the language"),
        ("[x for x in y]", "ListComp is not in the language"),
        ("f'{load}' == 'x'", "JoinedStr is not in the language"),
        ("(lambda: 1)()", "is not a function of the language"),
        ("load < 5j", "a complex is not a value"),
        ("load < b'x'", "a bytes is not a value"),
        ("load < 1" + "0" * 400, "too large"),
        ("(load < 0.8", "check brackets"),
        ("", "it is empty; write 'True'"),
        ("   ", "it is empty"),
        ("not " * 150 + "a", "more than 100 brackets"),
        ("(" * 5000, "this is no rule"),
        ("-" * 9000 + "a", "cannot be read|more than 100"),
        ("a" * 10_001, "10001 characters"),
        ("a\0b", "rule"),
        ("é > 1 and b-c", "character 11"),
    ],
)
def test_what_is_not_the_language_is_refused_with_its_place_and_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        Rule(text)
    assert len(str(refused.value)) < 700


def test_a_rule_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="rule 3: expected a text"):
        Rule(3)  # type: ignore[arg-type]


def test_nothing_a_rule_says_is_run() -> None:
    for text in ("__import__('os').system('x')", "().__class__", "print(load)", "(load := 3) > 1", "exec('1')"):
        with pytest.raises(ConfigError):
            Rule(text)


def test_100_000_nodes_take_milliseconds() -> None:
    nodes = 100_000
    rng = np.random.default_rng(0)
    columns = {name: rng.random(nodes) for name in ("battery", "load", "charging")}
    rule = Rule("battery >= 0.3 and load < 0.8 or charging > 0.5")
    took_s = []
    for _ in range(5):
        begun_s = time.perf_counter()
        mask = rule.mask(columns, nodes)
        took_s.append(time.perf_counter() - begun_s)
    wanted = (columns["battery"] >= 0.3) & (columns["load"] < 0.8) | (columns["charging"] > 0.5)
    assert mask.tolist() == wanted.tolist()
    assert min(took_s) < 0.05
