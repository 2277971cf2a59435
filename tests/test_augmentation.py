"""Tests of augmentation."""

import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.errors import ParameterError
from brainfeat.extraction import augmentation
from brainfeat.extraction.augmentation import Augmentation, augment_pixels

IMAGE = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
NOTHING = Augmentation(rotation=0, zoom=0, flip=False)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def augment(image=IMAGE, *, text="file", view=1, **parameters) -> np.ndarray:
    return augment_pixels(
        image, sha256=digest(text), view=view, augmentation=Augmentation(**parameters)
    )


def draws(count: int = 2000, **parameters) -> tuple[np.ndarray, ...]:
    drawn = [
        augmentation._draw(digest(str(i)), 1, Augmentation(**parameters)) for i in range(count)
    ]
    return tuple(np.array(column) for column in zip(*drawn, strict=True))


class TestAugmentPixels:
    def test_shape_and_type(self):
        view = augment()
        assert view.shape == IMAGE.shape
        assert view.dtype == np.uint8

    def test_depends_on_its_arguments_alone(self):
        first = augment()
        augment(text="another", view=7)
        np.random.default_rng().random(100)
        np.testing.assert_array_equal(augment(), first)

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "other"},
            {"view": 2},
            {"random_state": 1},
            {"rotation": 30},
            {"zoom": 0.2},
        ],
    )
    def test_each_argument_counts(self, change):
        assert not np.array_equal(augment(**change), augment())

    @pytest.mark.parametrize("shape", [(32, 32), (31, 17), (1, 1), (2, 50)])
    def test_without_ranges_it_is_the_identity(self, shape):
        image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        same = augment_pixels(image, sha256=digest("x"), view=1, augmentation=NOTHING)
        np.testing.assert_array_equal(same, image)

    @pytest.mark.parametrize("shape", [(32, 32), (31, 17)])
    def test_flip_alone_mirrors_left_to_right_exactly(self, shape):
        image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        mirrored = 0
        for i in range(40):
            view = augment(image, text=str(i), rotation=0, zoom=0)
            if np.array_equal(view, image[:, ::-1]):
                mirrored += 1
            else:
                np.testing.assert_array_equal(view, image)
        assert 5 < mirrored < 35

    def test_outside_is_black(self):
        white = np.full((64, 64, 3), 255, np.uint8)
        corners = [
            augment(white, text=str(i), rotation=45, zoom=0)[[0, 0, -1, -1], [0, -1, 0, -1]]
            for i in range(20)
        ]
        assert np.mean([not corner.any() for corner in corners]) > 0.5

    def test_center_stays(self):
        image = np.zeros((65, 65, 3), np.uint8)
        image[30:35, 30:35] = 255
        for i in range(20):
            view = augment(image, text=str(i), rotation=180, zoom=0.3)
            rows, columns = np.nonzero(view[..., 0] > 127)
            assert abs(rows.mean() - 32) < 0.6
            assert abs(columns.mean() - 32) < 0.6

    @pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, -1)])
    def test_angles_turn_against_the_clock(self, monkeypatch, angle, turns):
        monkeypatch.setattr(augmentation, "_draw", lambda *_: (angle, 1.0, False))
        np.testing.assert_allclose(augment().astype(int), np.rot90(IMAGE, turns), atol=1)

    def test_scale_enlarges(self, monkeypatch):
        monkeypatch.setattr(augmentation, "_draw", lambda *_: (0.0, 1.5, False))
        image = np.zeros((64, 64, 3), np.uint8)
        image[22:42, 22:42] = 255
        assert (augment(image)[..., 0] > 127).sum() == pytest.approx(900, rel=0.05)

    @pytest.mark.parametrize("view", [0, -1, 2**15, 1.0, True, "1"])
    def test_bad_views(self, view):
        with pytest.raises(ParameterError, match=r"view .*; expected 1 to 32,767"):
            augment(view=view)

    @pytest.mark.parametrize("sha256", [b"", b"1" * 31, "1" * 32, None])
    def test_bad_digests(self, sha256):
        with pytest.raises(ParameterError, match=r"sha256 .*; expected 32 bytes"):
            augment_pixels(IMAGE, sha256=sha256, view=1, augmentation=NOTHING)

    def test_bad_images(self):
        with pytest.raises(ParameterError, match="float32"):
            augment(IMAGE.astype(np.float64))

    def test_numpy_integers_are_integers(self):
        np.testing.assert_array_equal(augment(view=np.int16(3)), augment(view=3))


class TestDraws:
    def test_are_uniform_in_their_ranges(self):
        angle, scale, flip = draws(rotation=20, zoom=0.2)
        assert (angle.min(), angle.max()) == pytest.approx((-20, 20), abs=0.5)
        assert (scale.min(), scale.max()) == pytest.approx((0.8, 1.2), abs=0.01)
        assert abs(angle.mean()) < 1
        assert scale.mean() == pytest.approx(1, abs=0.01)
        assert flip.mean() == pytest.approx(0.5, abs=0.05)

    def test_are_independent_of_the_other_ranges(self):
        angle, scale, _ = draws(20)
        np.testing.assert_array_equal(draws(20, flip=False)[0], angle)
        np.testing.assert_array_equal(draws(20, rotation=3)[1], scale)

    def test_do_not_repeat_over_views_and_states(self):
        seen = {
            augmentation._draw(digest("x"), view, Augmentation(random_state=state))
            for view in range(1, 30)
            for state in range(30)
        }
        assert len(seen) == 29 * 30

    def test_are_kept_for_ever(self):
        # Features of views in existing caches hang on these numbers: they must never change.
        drawn = augmentation._draw(digest("brainfeat"), 3, Augmentation(random_state=7))
        assert drawn == pytest.approx((7.720551757733505, 1.076211059837793, False), rel=1e-12)


class TestAugmentation:
    def test_defaults(self):
        assert Augmentation().to_dict() == {
            "rotation": 15.0,
            "zoom": 0.1,
            "flip": True,
            "random_state": 0,
        }

    def test_equal_parameters_give_equal_json(self):
        one = Augmentation(rotation=10, zoom=0, flip=np.True_, random_state=np.int64(3))
        two = Augmentation(rotation=np.float32(10), zoom=0.0, flip=True, random_state=3)
        assert one == two
        assert hash(one) == hash(two)
        assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())

    @given(
        st.builds(
            Augmentation,
            rotation=st.floats(0, 180),
            zoom=st.floats(0, 1, exclude_max=True),
            flip=st.booleans(),
            random_state=st.integers(0, 2**32 - 1),
        )
    )
    def test_survives_json(self, parameters):
        assert Augmentation.from_dict(json.loads(json.dumps(parameters.to_dict()))) == parameters

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"rotation": -1}, "rotation -1; expected 0 to 180 degrees"),
            ({"rotation": 181}, "rotation 181; expected"),
            ({"rotation": math.nan}, "rotation nan; expected"),
            ({"rotation": "15"}, "rotation '15'; expected"),
            ({"rotation": True}, "rotation True; expected"),
            ({"zoom": -0.1}, "zoom -0.1; expected"),
            ({"zoom": 1}, "zoom 1; expected"),
            ({"zoom": math.inf}, "zoom inf; expected"),
            ({"zoom": None}, "zoom None; expected"),
            ({"flip": 1}, "flip 1; expected"),
            ({"flip": "yes"}, "flip 'yes'; expected"),
            ({"random_state": -1}, "random_state -1; expected"),
            ({"random_state": 2**32}, "random_state 4294967296; expected"),
            ({"random_state": 0.5}, "random_state 0.5; expected"),
            ({"random_state": None}, "random_state None; expected"),
        ],
    )
    def test_bad_parameters(self, parameters, message):
        with pytest.raises(ParameterError, match=message):
            Augmentation(**parameters)

    @pytest.mark.parametrize("change", [{"shear": 1}, {"flip": None}])
    def test_from_dict_takes_what_to_dict_gives(self, change):
        parameters = {**Augmentation().to_dict(), **change}
        parameters = {name: value for name, value in parameters.items() if value is not None}
        with pytest.raises(ParameterError, match=r"an augmentation of .*; expected"):
            Augmentation.from_dict(parameters)
