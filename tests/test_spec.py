"""The feature spec: stable fingerprints, and JSON that is read strictly."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.cache.spec import FeatureSpec
from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import CacheFormatError, SpecMismatchError

SPEC = FeatureSpec(
    backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0123456789abcdef" * 4
)
# These two literals are in users' files: they never change.
CANONICAL = (
    '{"backbone":"vgg16","colour":"rgb","dtype":"float32","fit":"stretch","input_size":224,'
    '"layer":"block5_pool","n_features":512,"orientation":"exif","pooling":"average",'
    '"precision":"float32","resize":"pillow-bilinear-8bit","scaling":"weights",'
    '"weights_sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}'
)
FINGERPRINT = "ce743f18d0830ad494d8f90cbc84d3706dee2c34d39274d16c4a7edf04fd527c"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half of a surrogate pair is no text that a file can hold.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def stored(**changes):
    return json.dumps({**json.loads(CANONICAL), **changes})


class TestIdentity:
    def test_the_canonical_json_is_frozen(self):
        assert SPEC.to_json() == CANONICAL

    def test_the_fingerprint_is_frozen(self):
        assert SPEC.fingerprint == FINGERPRINT

    def test_the_order_and_the_spaces_of_stored_json_are_no_part_of_it(self):
        loose = json.dumps(dict(reversed(json.loads(CANONICAL).items())), indent=2)
        assert FeatureSpec.from_json(loose).fingerprint == FINGERPRINT

    @pytest.mark.parametrize("field", dataclasses.fields(FeatureSpec), ids=lambda field: field.name)
    def test_every_field_changes_the_fingerprint(self, field):
        value = 999 if field.type is int else "another"
        changed = dataclasses.replace(SPEC, **{field.name: value})
        assert changed.fingerprint != FINGERPRINT

    def test_a_spec_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            SPEC.backbone = "resnet50"


class TestFromJson:
    def test_round_trip(self):
        assert FeatureSpec.from_json(SPEC.to_json()) == SPEC

    @pytest.mark.parametrize("text", ["[]", '"vgg16"', "1", "null", "true"])
    def test_what_is_no_object_is_refused(self, text):
        with pytest.raises(CacheFormatError, match="not a JSON object"):
            FeatureSpec.from_json(text)

    def test_an_unknown_field_is_named(self):
        with pytest.raises(CacheFormatError, match=r"\(tap\).*another version of brainfeat"):
            FeatureSpec.from_json(stored(tap=5))

    def test_a_missing_field_is_named(self):
        spec = json.loads(CANONICAL)
        del spec["fit"]
        with pytest.raises(CacheFormatError, match=r"\(fit\)"):
            FeatureSpec.from_json(json.dumps(spec))

    @pytest.mark.parametrize(
        ("field", "value", "expected"),
        [
            ("n_features", "512", "int"),
            ("n_features", 512.0, "int"),
            ("n_features", True, "int"),
            ("input_size", None, "int"),
            ("backbone", 16, "str"),
            ("scaling", ["weights"], "str"),
        ],
    )
    def test_a_field_of_another_type_is_named(self, field, value, expected):
        with pytest.raises(CacheFormatError, match=f"{field} is .*expected {expected}"):
            FeatureSpec.from_json(stored(**{field: value}))


class TestRequire:
    def test_equal_specs_pass(self):
        SPEC.require(dataclasses.replace(SPEC), here="the head", there="the cache")

    def test_each_field_that_differs_is_named_with_both_values_and_no_other(self):
        other = dataclasses.replace(SPEC, scaling="unit", input_size=299)
        with pytest.raises(SpecMismatchError) as caught:
            SPEC.require(other, here="the head", there="the cache")
        message = str(caught.value)
        assert message.startswith("the head and the cache ")
        assert "scaling: weights and unit" in message
        assert "input_size: 224 and 299" in message
        assert "backbone" not in message

    def test_a_digest_is_named_by_its_beginning(self):
        other = dataclasses.replace(SPEC, weights_sha256="f" * 64)
        with pytest.raises(SpecMismatchError, match="256: 0123456789ab… and ffffffffffff…"):
            SPEC.require(other, here="a", there="b")


class TestJson:
    @given(json_values)
    def test_round_trip(self, value):
        assert parse_json(canonical_json(value)) == value

    @given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2))
    def test_equal_values_have_equal_json(self, value):
        assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)

    def test_it_is_ascii_without_spaces(self):
        assert canonical_json({"b": [1, 2], "a": "Größe"}) == '{"a":"Gr\\u00f6\\u00dfe","b":[1,2]}'

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_no_number_that_is_not_finite_is_written(self, value):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical_json([value])

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("{'a': 1}", "not valid JSON"),
            ("1 2", "not valid JSON"),
            ("\ufeff1", "not valid JSON"),
            ('{"a": 1, "a": 1}', "repeats a key"),
            ('[{"b": {"a": 1, "a": 2}}]', "repeats a key"),
            ("NaN", "must not hold NaN"),
            ("[Infinity]", "must not hold Infinity"),
            ("[-Infinity]", "must not hold -Infinity"),
            ("[1e999]", "must not hold 1e999"),
            ("[" * 100_000, "not valid JSON"),
            ("[" * 100_000 + "]" * 100_000, "not valid JSON"),
            ('{"a":' * 100_000 + "1" + "}" * 100_000, "not valid JSON"),
            ("1" * 5_000, "not valid JSON"),
        ],
        ids=lambda value: value[:12] or "empty",
    )
    def test_strictness(self, text, reason):
        with pytest.raises(CacheFormatError, match=reason):
            parse_json(text)

    def test_a_text_beyond_all_reason_is_refused_before_it_is_parsed(self, monkeypatch):
        monkeypatch.setattr("brainfeat.canonical._JSON_LIMIT", 10)
        assert parse_json("[1,2,3,45]") == [1, 2, 3, 45]
        with pytest.raises(CacheFormatError, match="of 11 characters; expected at most 10"):
            parse_json("[1,2,3,456]")
