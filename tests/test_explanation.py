"""Heat maps: the closed form, where they lie, the checks of their sanity, and their pictures."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import ParameterError, SpecMismatchError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.dense import DenseHead
from brainfeat.heads.kinds import HEAD_NAMES, head_scores, make_head
from brainfeat.prediction.explanation import GRADIENT_HEADS, class_scores, explain, score_gradient
from brainfeat.report.heatmaps import save_heatmap

# TensorFlow's variables under NumPy 2, where Keras reads them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 32
CELL = 4
NOISE = np.float32(0.3)
N_FEATURES = 24
CLASSES = ("dark", "striped", "bright")
KERAS_SIZE = 128
KERAS_DRAWING = {"size": KERAS_SIZE, "square": 40, "smooth": 8}


class Convolution:
    """A base of one convolution of stride 4 with random kernels, and rectified linear units.

    It gives nothing where the image is as grey as noise is on average.
    """

    def __init__(self, seed=0):
        self.spec = FeatureSpec(
            backbone="mobilenet",
            layer="conv_pw_13_relu",
            n_features=N_FEATURES,
            weights_sha256=f"{seed}" * 64,
            input_size=SIZE,
        )
        self.recipe = {"seed": seed}
        self.shapes = set()
        self._kernels = np.random.default_rng(seed).normal(size=(CELL * CELL * 3, N_FEATURES))

    def compute_maps(self, images):
        self.shapes.add(images.shape)
        side = SIZE // CELL
        cells = images.reshape(len(images), side, CELL, side, CELL, 3).swapaxes(2, 3)
        patches = cells.reshape(len(images), side, side, -1)
        return np.maximum((patches - NOISE) @ self._kernels, 0.0).astype(np.float32)

    def __call__(self, images):
        return self.compute_maps(images).mean(axis=(1, 2))


class Pooled(Convolution):
    """The same base, which gives its features alone."""

    compute_maps = None

    def __call__(self, images):
        return Convolution.compute_maps(self, images).mean(axis=(1, 2))


def draw(rng, kind, *, size=SIZE, square=8, smooth=0):
    """Draw noise with a square, bright or striped, at a random place, which is given, too."""
    noise = gaussian_filter(rng.uniform(NOISE - 0.1, NOISE + 0.1, (size, size, 1)), smooth)
    image = np.repeat(noise, 3, axis=2).astype(np.float32)
    top, left = rng.integers(0, (size - square) // CELL + 1, 2) * CELL
    mask = np.zeros((size, size), bool)
    mask[top : top + square, left : left + square] = True
    if kind == "bright":
        image[mask] = 0.95
    if kind == "striped":
        image[mask & (np.arange(size) // 2 % 2 == 0)] = 0.95
        image[mask & (np.arange(size) // 2 % 2 == 1)] = 0.05
    return image, mask


def make_bundle(base, name, classes=CLASSES, *, n=60, head=None, **drawing):
    """Fit a head on drawings of each class."""
    rng = np.random.default_rng(7)
    images = np.stack([draw(rng, kind, **drawing)[0] for kind in classes for _ in range(n)])
    X = np.concatenate([base(images[start : start + n]) for start in range(0, len(images), n)])
    y = np.repeat(np.arange(len(classes)), n)
    if head is None:
        head = make_dense(X, len(classes)) if name == "dense" else make_head(name, random_state=0)
        head = head if name == "dense" else head.fit(X, y)
    return HeadBundle(
        spec=base.spec,
        class_names=tuple(classes),
        head=name,
        params={},
        estimator=head,
        temperature=1.0,
        training={},
        probe=X[:2],
    )


def make_dense(X, k):
    """Make a dense head of three random layers, without Keras."""
    rng = np.random.default_rng(3)
    widths = [X.shape[1], 16, 8, k]
    layers = [
        (rng.normal(size=(m, p)) / np.sqrt(m), rng.normal(size=p) * 0.1)
        for m, p in pairwise(widths)
    ]
    scale = np.where(X.std(0) > 0, X.std(0), 1.0)
    return DenseHead.from_arrays(layers, mean=X.mean(0), scale=scale, classes=np.arange(k))


def share_inside(heat, mask):
    return heat[mask].sum() / heat.sum()


@pytest.fixture(scope="module")
def base():
    return Convolution()


@pytest.fixture(scope="module")
def logistic(base):
    return make_bundle(base, "logistic")


@pytest.fixture(scope="module")
def planted():
    drawn = [draw(np.random.default_rng(seed), "bright") for seed in range(8)]
    return np.stack([image for image, _ in drawn]), [mask for _, mask in drawn]


@pytest.fixture(scope="module")
def mobilenet(real_data):
    weights = real_data / "weights" / "mobilenet_0.75_224_imagenet_notop.weights.h5"
    return load_backbone("mobilenet-0.75", weights=weights, input_size=KERAS_SIZE)


@pytest.fixture(scope="module")
def keras_bundle(mobilenet):
    return make_bundle(mobilenet, "logistic", ("dark", "striped"), n=32, **KERAS_DRAWING)


@pytest.fixture(scope="module")
def keras_planted():
    drawn = [draw(np.random.default_rng(seed), "striped", **KERAS_DRAWING) for seed in range(6)]
    return np.stack([image for image, _ in drawn]), [mask for _, mask in drawn]


@pytest.mark.parametrize("classes", [CLASSES, ("dark", "bright")])
@pytest.mark.parametrize("name", GRADIENT_HEADS)
def test_gradient_is_that_of_finite_differences(base, name, classes):
    bundle = make_bundle(base, name, classes)
    X = make_features(base).astype(np.float64)
    for target in range(len(classes)):
        gradient = score_gradient(bundle, X, np.full(len(X), target))
        for column in range(N_FEATURES):
            shift = np.zeros(N_FEATURES)
            shift[column] = 1e-6
            ahead, behind = (head_scores(bundle.estimator, X + sign * shift) for sign in (1, -1))
            slopes = (ahead - behind) / 2e-6
            slope = slopes[:, target] - slopes.mean(axis=1)
            np.testing.assert_allclose(gradient[:, column], slope, rtol=1e-4, atol=1e-4)


def make_features(base):
    rng = np.random.default_rng(2)
    return base(np.stack([draw(rng, kind)[0] for kind in CLASSES for _ in range(4)]))


@pytest.mark.parametrize("name", ["logistic", "lda", "linear-svm"])
def test_grad_cam_lies_on_the_planted_square(base, planted, name):
    images, masks = planted
    explanation = explain(make_bundle(base, name), images, backbone=base)
    assert explanation.method == "grad-cam"
    assert explanation.targets.tolist() == [2] * len(images)
    for heat, mask in zip(explanation.maps, masks, strict=True):
        assert mask[np.unravel_index(heat.argmax(), heat.shape)]
        assert share_inside(heat, mask) > 0.5


@pytest.mark.parametrize(
    "name", ["svm", "knn", "random-forest", "hist-gradient-boosting", "logistic"]
)
def test_occlusion_lies_on_the_planted_square(base, planted, name):
    images, masks = planted[0][:3], planted[1][:3]
    explanation = explain(
        make_bundle(base, name, ("dark", "bright")), images, backbone=base, method="occlusion"
    )
    assert explanation.method == "occlusion"
    for heat, mask in zip(explanation.maps, masks, strict=True):
        assert mask[np.unravel_index(heat.argmax(), heat.shape)]


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_auto_takes_grad_cam_where_the_head_has_a_derivative(base, planted, name):
    explanation = explain(make_bundle(base, name, n=12), planted[0][:1], backbone=base)
    assert explanation.method == ("grad-cam" if name in GRADIENT_HEADS else "occlusion")


def test_auto_takes_occlusion_where_the_base_gives_no_maps(logistic, planted):
    assert explain(logistic, planted[0][:1], backbone=Pooled()).method == "occlusion"


def test_maps_are_float32_of_the_input_size_with_a_maximum_of_one(logistic, base, planted):
    maps = explain(logistic, planted[0], backbone=base).maps
    assert maps.dtype == np.float32
    assert maps.shape == planted[0].shape[:3]
    assert maps.min() >= 0
    assert (maps.max(axis=(1, 2)) == 1).all()


def test_both_classes_of_a_binary_head_have_maps_of_their_own(base, planted):
    bundle = make_bundle(base, "logistic", ("dark", "bright"))
    images, masks = planted
    dark = explain(bundle, images, backbone=base, targets=[0] * len(images)).maps
    bright = explain(bundle, images, backbone=base, targets=[1] * len(images)).maps
    for low, high, mask in zip(dark, bright, masks, strict=True):
        assert share_inside(high, mask) > 0.5
        assert share_inside(low, mask) < 0.2


def test_map_is_zero_where_nothing_raises_the_score(logistic, base):
    maps = explain(logistic, np.full((1, SIZE, SIZE, 3), NOISE), backbone=base).maps
    assert not maps.any()


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_many_images_are_computed_in_batches_of_one_shape(planted, method):
    base = Convolution()
    bundle = make_bundle(base, "logistic")
    base.shapes.clear()
    images = np.concatenate([planted[0]] * 5)
    maps = explain(bundle, images, backbone=base, method=method).maps
    assert base.shapes == {(32, SIZE, SIZE, 3)}
    alone = explain(bundle, images[:1], backbone=base, method=method).maps
    np.testing.assert_allclose(maps[-8], alone[0], atol=1e-5)


def test_no_images_give_no_maps(logistic, base):
    images = np.empty((0, SIZE, SIZE, 3), np.float32)
    assert explain(logistic, images, backbone=base).maps.shape == (0, SIZE, SIZE)


def test_images_are_left_as_they_are(logistic, base, planted):
    images = planted[0][:2].copy()
    explain(logistic, images, backbone=base, method="occlusion")
    np.testing.assert_array_equal(images, planted[0][:2])


def test_maps_change_when_the_head_is_randomised(logistic, base, planted):
    images = planted[0]
    X = make_features(base)
    rng = np.random.default_rng(11)
    head = make_head("logistic").fit(X, rng.permutation(np.arange(len(X)) % len(CLASSES)))
    head["classifier"].coef_ = rng.normal(size=head["classifier"].coef_.shape)
    random = dataclasses.replace(logistic, estimator=head)
    targets = [2] * len(images)
    fitted_maps = explain(logistic, images, backbone=base, targets=targets).maps
    random_maps = explain(random, images, backbone=base, targets=targets).maps
    assert mean_correlation(fitted_maps, random_maps) < 0.5


def mean_correlation(first, second):
    pairs = zip(first, second, strict=True)
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, SIZE, SIZE, 3)), "float32, got float64"),
        ([[0.0]], "got list"),
        (np.zeros((SIZE, SIZE, 3), np.float32), "got \\(32, 32, 3\\)"),
        (np.zeros((1, 16, 16, 3), np.float32), "shape \\(n, 32, 32, 3\\)"),
        (np.full((1, SIZE, SIZE, 3), 255, np.float32), "got 255 to 255"),
        (np.full((1, SIZE, SIZE, 3), np.nan, np.float32), "got nan"),
    ],
)
def test_bad_images_are_refused(logistic, base, images, message):
    with pytest.raises(ParameterError, match=message):
        explain(logistic, images, backbone=base)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([3], "0 to 2, got 3 to 3"),
        ([-1], "got -1"),
        ([0, 1], "1 whole numbers"),
        ([0.5], "got float64"),
        (1, "of shape \\(\\)"),
    ],
)
def test_bad_targets_are_refused(logistic, base, planted, targets, message):
    with pytest.raises(ParameterError, match=message):
        explain(logistic, planted[0][:1], backbone=base, targets=targets)


def test_an_unknown_method_is_refused(logistic, base, planted):
    with pytest.raises(ParameterError, match="expected one of auto, grad-cam, occlusion"):
        explain(logistic, planted[0], backbone=base, method="saliency")


def test_grad_cam_is_refused_where_it_cannot_be(base, logistic, planted):
    with pytest.raises(ParameterError, match="got svm; use occlusion"):
        explain(make_bundle(base, "svm"), planted[0], backbone=base, method="grad-cam")
    with pytest.raises(ParameterError, match="one base and layer, with the method compute_maps"):
        explain(logistic, planted[0], backbone=Pooled(), method="grad-cam")


def test_a_base_with_other_weights_is_refused(logistic, planted):
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        explain(logistic, planted[0], backbone=Convolution(seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_means_of_the_maps_of_keras_are_the_features(precision):
    backbone = load_backbone("mobilenet-0.75", weights="random", input_size=64, precision=precision)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    maps = backbone.compute_maps(images)
    assert maps.dtype == np.float32
    assert maps.shape == (2, 2, 2, 768)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), backbone(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_grad_cam_of_keras_is_that_of_its_maps():
    backbone = load_backbone("mobilenet-0.75", weights="random", input_size=64)
    bundle = make_bundle(backbone, "logistic", n=4, size=64)
    images = np.stack([draw(np.random.default_rng(seed), "bright", size=64)[0] for seed in (1, 2)])
    coarse = np.einsum(
        "nhwd,nd->nhw",
        backbone.compute_maps(images),
        score_gradient(bundle, backbone(images), np.array([2, 0])),
    )
    maps = explain(bundle, images, backbone=backbone, targets=[2, 0]).maps
    corners = maps[:, [[0], [-1]], [0, -1]]
    for found, wanted in zip(corners, coarse, strict=True):
        assert found.any() == (wanted > 0).any()
        assert found.argmax() == wanted.argmax() or not found.any()


@pytest.mark.slow
def test_map_of_keras_lies_on_the_planted_square(mobilenet, keras_bundle, keras_planted):
    images, masks = keras_planted
    explanation = explain(keras_bundle, images, backbone=mobilenet)
    assert explanation.targets.tolist() == [1] * len(images)
    inside = [heat[mask].mean() for heat, mask in zip(explanation.maps, masks, strict=True)]
    outside = [heat[~mask].mean() for heat, mask in zip(explanation.maps, masks, strict=True)]
    assert np.mean(inside) > 2 * np.mean(outside)


def test_map_of_keras_changes_when_the_weights_are_randomised(
    mobilenet, keras_bundle, keras_planted
):
    other = load_backbone("mobilenet-0.75", weights="random", input_size=KERAS_SIZE)
    images, targets = keras_planted[0], [1] * len(keras_planted[0])
    first = explain(keras_bundle, images, backbone=mobilenet, targets=targets).maps
    bundle = dataclasses.replace(keras_bundle, spec=other.spec)
    second = explain(bundle, images, backbone=other, targets=targets).maps
    assert mean_correlation(first, second) < 0.5


def test_blurring_the_marked_area_costs_more_than_a_random_one(base, logistic):
    drawn = [draw(np.random.default_rng(seed), "striped")[0] for seed in range(20)]
    images = np.stack(drawn)
    explanation = explain(logistic, images, backbone=base)
    assert explanation.targets.tolist() == [1] * len(images)
    blurred = gaussian_filter(images, (0, 4, 4, 0))
    rng = np.random.default_rng(0)
    marked = np.stack([heat >= np.quantile(heat, 0.9) for heat in explanation.maps])
    moved = np.stack([np.roll(area, rng.integers(SIZE, size=2), (0, 1)) for area in marked])

    def fall(areas):
        changed = np.where(areas[..., None], blurred, images)
        before, after = (class_scores(logistic, base(x))[:, 1] for x in (images, changed))
        return before - after

    assert fall(marked).mean() > 3 * abs(fall(moved).mean())
    assert (fall(marked) > fall(moved)).mean() >= 0.9


def test_picture_keeps_the_aspect_of_a_wide_image(tmp_path):
    heat = np.tile(np.linspace(0, 1, SIZE, dtype=np.float32), (SIZE, 1))
    spans = {}
    for width in (100, 200):
        path = tmp_path / f"{width}.png"
        pixels = np.full((100, width, 3), [1.0, 0.0, 0.0], np.float32)
        save_heatmap(pixels, heat, path, title="glioma", probability=0.9)
        with Image.open(path) as picture:
            grid = np.asarray(picture.convert("RGB")).astype(int)
        red = (grid[..., 0] > 200) & (grid[..., 1] < 30) & (grid[..., 2] < 30)
        left = red[:, : grid.shape[1] // 2 - 60]  # the plain image alone
        spans[width] = np.ptp(np.flatnonzero(left.any(0))) / np.ptp(np.flatnonzero(left.any(1)))
    assert spans[200] == pytest.approx(2 * spans[100], rel=0.25)


@pytest.mark.parametrize(
    "shape", [(40, 60), (60, 40, 3), (10, 300, 3), (1, 50), (1, 1), (5000, 3000)]
)
def test_picture_takes_any_shape_and_name(tmp_path, shape):
    path = tmp_path / "map.png"
    pixels = np.full(shape, 128, np.uint8)
    heat = np.tile(np.linspace(0, 1, SIZE, dtype=np.float32), (SIZE, 1))
    save_heatmap(pixels, heat, path, title="$\\frac{a$ \x07 " + "long " * 20, probability=1.0)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 200


def test_picture_of_an_empty_map_is_drawn(tmp_path):
    path = tmp_path / "map.png"
    heat = np.zeros((SIZE, SIZE), np.float32)
    save_heatmap(np.full((40, 40), 0.5), heat, path, title="glioma", probability=0.5)
    with Image.open(path) as picture:
        colours = np.asarray(picture.convert("RGB"))
    middle = colours[colours.shape[0] // 2]
    assert (abs(middle[middle.shape[0] * 2 // 3].astype(int) - 128) <= 1).all()


@pytest.mark.parametrize(("shape", "step"), [((200, 300), 1), ((2000, 3000), 2)])
def test_picture_of_a_part_lies_where_the_part_is(tmp_path, shape, step):
    height, width = shape
    box = (height // 2, width // 5, height * 9 // 10, width // 2)
    heat = np.ones((SIZE, SIZE), np.float32)
    path = tmp_path / "map.png"
    pixels = np.zeros(shape, np.uint8)
    save_heatmap(pixels, heat, path, title="glioma", probability=0.5, box=box)
    with Image.open(path) as picture:
        grid = np.asarray(picture.convert("RGB")).astype(int)
    # The brightest colour of the map over black, in the right panel without the colour bar.
    warm = (grid[..., 0] > 120) & (grid[..., 2] < grid[..., 0])
    warm[:, int(grid.shape[1] * 0.92) :] = False
    rows, columns = np.flatnonzero(warm.sum(1) > 20), np.flatnonzero(warm.sum(0) > 20)
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(0.3 * width / (0.4 * height), rel=0.05)


def test_pictures_of_equal_maps_are_equal_bytes(tmp_path):
    heat = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for path in paths:
        save_heatmap(np.zeros((40, 40)), heat, path, title="glioma", probability=0.5)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("pixels", "heat", "probability", "message"),
    [
        (np.zeros((4, 4, 4)), np.zeros((2, 2)), 0.5, "pixels must have shape"),
        (np.full((4, 4), 255.0), np.zeros((2, 2)), 0.5, "uint8 or lie in"),
        (np.zeros((4, 4)), np.zeros(2), 0.5, "a heat map must have shape"),
        (np.zeros((4, 4)), np.full((2, 2), np.nan), 0.5, "a heat map must lie in"),
        (np.zeros((4, 4)), np.zeros((2, 2)), 90, "probability must lie in"),
    ],
)
def test_picture_refuses_what_is_no_map(tmp_path, pixels, heat, probability, message):
    with pytest.raises(ParameterError, match=message):
        save_heatmap(pixels, heat, tmp_path / "map.png", title="glioma", probability=probability)


@pytest.mark.parametrize("box", [(0, 0, 5, 4), (2, 0, 2, 4), (0, -1, 4, 4)])
def test_picture_refuses_a_part_that_is_not_of_the_image(tmp_path, box):
    pixels, heat, path = np.zeros((4, 4)), np.zeros((2, 2)), tmp_path / "map.png"
    with pytest.raises(ParameterError, match="expected a part of an image of 4 × 4 pixels"):
        save_heatmap(pixels, heat, path, title="glioma", probability=0.5, box=box)
