"""The table of bases against Keras's own models, and weights that are missing or wrong."""

import itertools
import json
import re
import subprocess
import sys
import textwrap
import urllib.error
import warnings
from functools import cache, partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainfeat import runtime
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import ParameterError, WeightsError
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.engines import ENGINES
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.extraction.weights import digest_tensors, local_imagenet_file
from brainfeat.readers import read_image

# TensorFlow's variables under NumPy 2, where Keras saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 32
MOBILENET = "mobilenet-0.75"
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def keras():
    return runtime.import_keras()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)


def random_backbone(name=MOBILENET, **options):
    return load_backbone(name, **{"weights": "random", "input_size": SIZE, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that saves a base of random weights and returns the file."""
    folder = tmp_path_factory.mktemp("weights")
    return cache(partial(save_random, folder))


def save_random(folder, name):
    backbone = random_backbone(name, random_state=1)
    path = folder / f"{name}.weights.h5"
    backbone.base.save_weights(path)
    (folder / f"{name}.json").write_text(backbone.spec.to_json())
    return path


def spec_of(path):
    """Return the spec of the backbone whose weights were saved."""
    return FeatureSpec.from_json(
        path.with_name(path.name.replace("weights.h5", "json")).read_text()
    )


def digest_base(model):
    """Digest the weights of a Keras model as those of a backbone."""
    tensors = {
        re.sub(r"^normalization_\d+/", "normalization/", variable.path): np.asarray(variable)
        for variable in model.variables
        if "seed_generator" not in variable.path
    }
    return digest_tensors(tensors)


def width(name):
    alpha = BACKBONES[name].alpha
    return {} if alpha is None else {"alpha": alpha}


def kerass_own(keras, name, **options):
    """Build a base as a user of Keras would: with its own pooling."""
    constructor = getattr(keras.applications, BACKBONES[name].constructor)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
        return constructor(include_top=False, pooling="avg", **width(name), **options)


def kerass_scaling(keras, name, pixels):
    module = getattr(keras.applications, BACKBONES[name].module)
    return module.preprocess_input(pixels.copy())


def assert_same_features(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert expected.std() > 0
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).mean()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_base_is_kerass_own(keras, images, name, monkeypatch, tmp_path):
    """The row of the table, the scaling and the digest, on Keras's model of "ImageNet" weights."""
    row, backbone = BACKBONES[name], random_backbone(name)
    path = tmp_path / "as_imagenet.weights.h5"
    backbone.base.save_weights(path)
    asked = []

    def get_file(fname, origin, *, cache_subdir, file_hash=None):
        asked.append((fname, origin, cache_subdir, file_hash))
        return str(path)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    model = kerass_own(keras, name, weights="imagenet", input_shape=(SIZE, SIZE, 3))
    filename = local_imagenet_file(name).name
    assert asked == [(filename, row.url, "models", row.md5)]

    assert model.layers[-2].name == row.layer
    assert model.output_shape == (None, row.n_features)

    expected = np.asarray(model(kerass_scaling(keras, name, images * 255), training=False))
    assert_same_features(backbone(images), expected)
    assert_same_features(random_backbone(name, engine="keras")(images), expected)
    assert backbone.spec.layer == row.layer
    assert backbone.spec.n_features == row.n_features
    assert backbone.spec.weights_sha256 == digest_base(model)


@pytest.mark.slow
@pytest.mark.parametrize("size", [160, 224])
@pytest.mark.parametrize("engine", ENGINES)
def test_real_features_are_kerass_own(keras, real_data, size, engine):
    """The images of MRI through the real ImageNet weights of MobileNet."""
    path = real_data / "weights" / "mobilenet_0.75_224_imagenet_notop.weights.h5"
    model = kerass_own(keras, MOBILENET, weights=None, input_shape=(size, size, 3))
    model.load_weights(path)
    ours, pixels = real_images(keras, real_data, size)
    backbone = load_backbone(MOBILENET, weights=path, input_size=size, engine=engine)
    expected = np.asarray(model(kerass_scaling(keras, MOBILENET, pixels), training=False))
    assert_same_features(backbone(ours), expected)


@pytest.mark.deep
@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_features_of_real_images_point_the_same_way(keras, real_data, engine):
    ours, _ = real_images(keras, real_data, 224)
    full, half = (
        load_backbone("vgg16", weights="random", precision=precision, engine=engine)(ours)
        for precision in ("float32", "bfloat16")
    )
    lengths = np.linalg.norm(full, axis=1) * np.linalg.norm(half, axis=1)
    assert ((full * half).sum(axis=1) / lengths).mean() >= 0.9995
    assert not np.array_equal(full, half)


@pytest.mark.deep
@pytest.mark.parametrize("engine", ENGINES)
def test_features_of_real_images_are_those_of_kerass_vgg16(keras, real_data, saved, engine):
    path = saved("vgg16")
    model = kerass_own(keras, "vgg16", weights=None, input_shape=(224, 224, 3))
    model.load_weights(path)
    ours, pixels = real_images(keras, real_data, 224)
    backbone = load_backbone("vgg16", weights=path, engine=engine)
    scaled = kerass_scaling(keras, "vgg16", pixels)
    expected = np.asarray(model.predict(scaled, batch_size=8, verbose=0))
    assert_same_features(backbone(ours), expected)


def real_images(keras, real_data, size):
    """Read 16 slices of all classes, grey ones among them, in our way and in Keras's."""
    paths = sorted((real_data / "data" / "brain-mri" / "Testing").glob("*/*.jpg"))
    paths = paths[:: len(paths) // 16][:16]
    ours = [preprocess_image(read_image(path), size=size) for path in paths]
    theirs = [
        keras.utils.img_to_array(
            keras.utils.load_img(path, target_size=(size, size), interpolation="bilinear")
        )
        for path in paths
    ]
    return np.stack(ours), np.stack(theirs)


class TestOptions:
    def test_unit_scaling_feeds_zero_to_one(self, images):
        backbone = random_backbone(scaling="unit")
        maps = np.asarray(backbone.base(images, training=False))
        assert_same_features(backbone(images), maps.mean(axis=(1, 2)))
        assert backbone.spec.scaling == "unit"

    @pytest.mark.slow
    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_a_lower_precision_computes_in_it_and_gives_float32(self, images, precision):
        backbone = random_backbone(precision=precision, engine="keras")
        layer = backbone.base.get_layer("conv_pw_13")
        assert layer.compute_dtype == precision
        assert layer.variable_dtype == "float32"
        exact = random_backbone(engine="keras")(images)
        features = backbone(images)
        assert not np.array_equal(features, exact)
        np.testing.assert_allclose(features, exact, rtol=0.1, atol=0.1 * exact.mean())
        assert features.dtype == np.float32
        assert backbone.spec.precision == precision
        assert backbone.spec.weights_sha256 == random_backbone().spec.weights_sha256

    def test_features_do_not_depend_on_the_rest_of_the_batch(self, images):
        backbone = random_backbone()
        np.testing.assert_allclose(backbone(images)[1:2], backbone(images[1:2]), rtol=1e-4)

    def test_a_batch_has_fewer_images_the_larger_they_are(self):
        sizes = [random_backbone(input_size=size).batch_size for size in (32, 224, 448, 4096)]
        assert sizes == [98, 2, 1, 1]
        keras = random_backbone(input_size=224, precision="bfloat16", engine="keras")
        assert keras.batch_size == 32

    @pytest.mark.parametrize("faster", ["bfloat16", "float32"])
    @pytest.mark.parametrize(("name", "robust"), [("vgg16", True), (MOBILENET, False)])
    def test_auto_takes_bfloat16_where_the_base_survives_it(
        self, monkeypatch, faster, name, robust
    ):
        monkeypatch.setattr(runtime, "choose_precision", lambda device: faster)
        chosen = random_backbone(name, precision="auto", engine="keras").precision
        assert chosen == (faster if robust else "float32")

    @pytest.mark.parametrize(("n_images", "winograd"), [(None, True), (200, True), (199, False)])
    def test_few_images_do_not_wait_for_winograd(self, monkeypatch, n_images, winograd):
        asked = []

        def accelerate(base, *, winograd):
            asked.append(winograd)
            return base

        monkeypatch.setattr("brainfeat.extraction.keras_engine.accelerate", accelerate)
        random_backbone(engine="keras").compile(n_images=n_images)
        assert asked == [winograd]

    def test_a_base_is_compiled_once(self, images):
        backbone = random_backbone(engine="keras")
        (forward,) = backbone.compile(n_images=3)
        assert backbone.compile(n_images=4) == (forward,)
        np.testing.assert_array_equal(backbone(images), forward(images))

    def test_an_unknown_device_is_refused(self):
        with pytest.raises(ParameterError, match="no device 'tpu:0'; there are cpu:0"):
            random_backbone(device="tpu:0").devices  # noqa: B018

    @pytest.mark.parametrize("engine", ENGINES)
    def test_once_it_is_compiled_the_weights_are_let_go_of(self, images, engine):
        backbone = random_backbone(engine=engine)
        features, spec = backbone(images), backbone.spec
        assert "_tensors" not in vars(backbone)
        assert digest_base(backbone.base) == spec.weights_sha256
        np.testing.assert_array_equal(backbone(images), features)

    def test_the_base_is_frozen(self):
        assert random_backbone().base.trainable_variables == []

    def test_the_defaults_are_those_of_the_method(self):
        backbone = load_backbone()
        assert (backbone.name, backbone.weights, backbone.scaling) == (
            "vgg16",
            "imagenet",
            "weights",
        )
        assert (backbone.input_size, backbone.precision) == (224, "float32")

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("vgg17", {}, "'vgg17'; expected one of vgg16, vgg19"),
            ("vgg16", {"scaling": "caffe"}, "'caffe'; expected one of weights, unit"),
            ("vgg16", {"precision": "float8"}, "'float8'; expected one of float32, bfloat16"),
            ("vgg16", {"input_size": 31}, "31; expected 32 to 4096"),
            ("vgg16", {"input_size": 4097}, "4097; expected 32 to 4096"),
            ("vgg16", {"input_size": 64.5}, "64.5; expected 32 to 4096"),
            ("vgg16", {"input_size": "64"}, "'64'; expected 32 to 4096"),
            ("vgg16", {"random_state": -1, "weights": "random"}, "-1; expected"),
            ("vgg16", {"random_state": 0.5, "weights": "random"}, "0.5; expected"),
        ],
    )
    def test_unknown_ones(self, name, options, message):
        with pytest.raises(ParameterError, match=message):
            load_backbone(name, **options)


SETTINGS = {
    "channels_first": lambda config: config.set_image_data_format("channels_first"),
    "float64": lambda config: config.set_floatx("float64"),
    "float16": lambda config: config.set_floatx("float16"),
    "mixed_float16": lambda config: config.set_dtype_policy("mixed_float16"),
}


@pytest.fixture(scope="module")
def undisturbed(images):
    """Give a function that computes features without settings, once for each base."""
    return cache(lambda name: random_backbone(name, engine="keras")(images))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *itertools.product([MOBILENET, "vgg16"], SETTINGS),
        pytest.param("efficientnetb0", "channels_first", marks=SLOW),
        pytest.param("efficientnetb0", "mixed_float16", marks=SLOW),
    ],
)
def test_settings_of_the_session_change_nothing(keras, images, undisturbed, name, setting):
    config = keras.config
    policy, expected = config.dtype_policy(), undisturbed(name)
    try:
        SETTINGS[setting](config)
        backbone = random_backbone(name, engine="keras")
        features = backbone(images)
        maps = backbone.compute_maps(images)
    finally:
        config.set_image_data_format("channels_last")
        config.set_floatx("float32")
        config.set_dtype_policy(policy)
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), expected, rtol=1e-4, atol=1e-4)


class TestRandomWeights:
    @pytest.mark.slow
    def test_they_are_the_same_for_the_same_seed(self, images):
        first, second = random_backbone(random_state=7), random_backbone(random_state=7)
        assert first.spec == second.spec
        np.testing.assert_array_equal(first(images), second(images))

    def test_another_seed_gives_others(self):
        assert random_backbone(random_state=0).spec != random_backbone(random_state=1).spec

    def test_no_two_layers_are_alike(self):
        kernels = [
            np.asarray(variable)
            for variable in random_backbone("vgg16").base.variables
            if variable.shape == (3, 3, 512, 512)
        ]
        assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) > 2

    def test_kernels_are_he_normal(self):
        base = random_backbone().base
        pointwise = np.asarray(base.get_layer("conv_pw_13").kernel)
        depthwise = np.asarray(base.get_layer("conv_dw_13").kernel)
        assert pointwise.std() == pytest.approx(np.sqrt(2 / 768), rel=0.01)
        assert depthwise.std() == pytest.approx(np.sqrt(2 / 9), rel=0.03)
        assert abs(pointwise.mean()) < 1e-3

    def test_they_do_not_depend_on_the_input_size(self):
        assert (
            random_backbone(input_size=64).spec.weights_sha256
            == random_backbone().spec.weights_sha256
        )

    @pytest.mark.slow
    def test_the_digest_does_not_depend_on_models_built_before(self, saved):
        """Keras numbers EfficientNet's normalization layers through the process."""
        again = random_backbone("efficientnetb0", random_state=1)
        assert again.spec == spec_of(saved("efficientnetb0"))


class TestDigest:
    def test_it_notices_one_changed_weight(self):
        base = random_backbone().base
        before = digest_base(base)
        bias = base.get_layer("conv1_bn").beta
        values = np.asarray(bias).copy()
        values[0] += 1e-6
        bias.assign(values)
        assert digest_base(base) != before

    def test_it_notices_swapped_layers(self):
        base = random_backbone().base
        before = digest_base(base)
        first, second = base.get_layer("conv_pw_8"), base.get_layer("conv_pw_9")
        kernels = np.asarray(first.kernel), np.asarray(second.kernel)
        assert kernels[0].shape == kernels[1].shape
        first.kernel.assign(kernels[1])
        second.kernel.assign(kernels[0])
        assert digest_base(base) != before


def save_legacy(base, path):
    """Save weights in the layout of the files that Keras offers for download."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, base)


class TestWeightsFile:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", [MOBILENET, "efficientnetb0"])
    def test_both_layouts_are_the_same_weights(self, saved, tmp_path, name):
        legacy = tmp_path / "legacy.h5"
        save_legacy(random_backbone(name, random_state=1).base, legacy)
        assert load_backbone(name, weights=legacy, input_size=SIZE).spec == spec_of(saved(name))

    def test_the_recipe_knows_the_file_by_content(self, saved, tmp_path):
        path = saved(MOBILENET)
        copy = tmp_path / "copy.weights.h5"
        copy.write_bytes(path.read_bytes())
        recipe = load_backbone(MOBILENET, weights=path).recipe
        assert recipe == load_backbone(MOBILENET, weights=str(copy)).recipe
        assert str(path.parent) not in json.dumps(recipe)
        with h5py.File(copy, "r+") as file:
            file.attrs["note"] = "another file"
        assert recipe != load_backbone(MOBILENET, weights=copy).recipe

    @pytest.mark.parametrize(
        "options",
        [
            {"scaling": "unit"},
            {"input_size": 64},
            {"precision": "bfloat16"},
            {"random_state": 1},
            {"name": "mobilenet"},
        ],
    )
    def test_the_recipe_has_what_determines_the_spec(self, options):
        assert random_backbone(**options).recipe != random_backbone().recipe

    def test_a_file_with_top_in_the_new_layout_gives_the_same_features(self, keras, tmp_path):
        """Keras finds the layers by name there, and leaves the classifier aside."""
        path = tmp_path / "with_top.weights.h5"
        model = keras.applications.MobileNet(weights=None, classes=2, alpha=0.75)
        model.save_weights(path)
        base = keras.Model(model.input, model.get_layer("conv_pw_13_relu").output)
        backbone = load_backbone(MOBILENET, weights=path, input_size=SIZE)
        assert backbone.spec.weights_sha256 == digest_base(base)

    def test_a_home_is_found(self, saved, monkeypatch):
        path = saved(MOBILENET)
        monkeypatch.setenv("HOME", str(path.parent))
        backbone = load_backbone(MOBILENET, weights=f"~/{path.name}")
        assert backbone.weights_file == path


def refused(backbone):
    """Return the message of the one-line error."""
    with pytest.raises(WeightsError) as caught:
        _ = backbone.spec
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


class TestWrongWeights:
    def test_a_file_that_is_not_there(self, tmp_path):
        path = tmp_path / "missing.weights.h5"
        message = refused(load_backbone("vgg16", weights=path, input_size=SIZE))
        assert str(path) in message
        assert "weights=PATH" in message

    def test_a_folder(self, tmp_path):
        assert str(tmp_path) in refused(load_backbone("vgg16", weights=tmp_path))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("theirs", "ours", "layout"),
        [
            ("vgg19", "vgg16", "new"),
            ("vgg19", "vgg16", "legacy"),
            ("mobilenet", MOBILENET, "new"),
            ("mobilenet", MOBILENET, "legacy"),
            ("mobilenet", "mobilenetv2", "new"),
        ],
    )
    def test_a_file_of_another_base(self, saved, tmp_path, theirs, ours, layout):
        path = saved(theirs)
        if layout == "legacy":
            path = tmp_path / "legacy.h5"
            save_legacy(random_backbone(theirs).base, path)
        message = refused(load_backbone(ours, weights=path, input_size=SIZE))
        assert path.name in message
        assert f"holds the weights of {theirs}, and no weights of {ours} without top" in message
        assert "expected" not in message

    def test_a_legacy_file_with_top(self, keras, tmp_path):
        path = tmp_path / "with_top.h5"
        save_legacy(keras.applications.MobileNet(weights=None, classes=2, alpha=0.75), path)
        message = refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))
        assert "without top" in message

    @pytest.mark.parametrize("suffix", [".keras", ""])
    def test_a_file_of_another_kind_is_not_opened(self, saved, tmp_path, suffix):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(saved(MOBILENET).read_bytes())
        backbone = load_backbone(MOBILENET, weights=path, input_size=SIZE)
        assert path.name in refused(backbone)
        with pytest.raises(WeightsError, match=r"expected \.h5 or \.weights\.h5"):
            _ = backbone.recipe

    @pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".txt"])
    def test_a_file_that_is_not_hdf5(self, tmp_path, suffix):
        path = tmp_path / f"notes{suffix}"
        path.write_text("somebody's notes\nin two lines")
        assert path.name in refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))

    @pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
    def test_an_hdf5_file_of_something_else(self, tmp_path, suffix):
        path = tmp_path / f"other{suffix}"
        with h5py.File(path, "w") as file:
            file["numbers"] = np.arange(3)
        assert path.name in refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))

    @pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
    def test_a_truncated_file(self, saved, tmp_path, part):
        data = saved(MOBILENET).read_bytes()
        path = tmp_path / "truncated.weights.h5"
        path.write_bytes(data[: int(len(data) * part)])
        assert path.name in refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_not_finite(self, saved, tmp_path, value):
        path = tmp_path / "damaged.weights.h5"
        path.write_bytes(saved(MOBILENET).read_bytes())
        with h5py.File(path, "r+") as file:
            file["layers/conv2d_5/vars/0"][0, 0, 3, 2] = value
        message = refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))
        assert message.startswith("damaged.weights.h5 is damaged: ")
        assert message.endswith(" has numbers that are not finite; pass an intact copy")

    def test_a_file_without_one_of_the_layers(self, saved, tmp_path):
        path = tmp_path / "partial.weights.h5"
        path.write_bytes(saved(MOBILENET).read_bytes())
        with h5py.File(path, "r+") as file:
            del file["layers/batch_normalization_5"]
        assert path.name in refused(load_backbone(MOBILENET, weights=path, input_size=SIZE))


class TestImagenet:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        return tmp_path

    @pytest.fixture
    def download(self, keras, monkeypatch):
        """Return a function that sets the outcome of a download."""

        def set_download(outcome):
            def urlretrieve(url, target, report=None):
                if isinstance(outcome, Exception):
                    raise outcome
                Path(target).write_bytes(outcome)

            monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", urlretrieve)

        return set_download

    @pytest.mark.parametrize("name", ["vgg16", "mobilenet"])
    def test_without_a_network(self, home, download, name, capfd):
        download(urllib.error.URLError(OSError(-2, "Name or service not known")))
        message = refused(load_backbone(name, input_size=SIZE))
        assert local_imagenet_file(name).name in message
        assert "weights=PATH" in message
        assert "Name or service not known" in message
        assert ("MD5" in message) == (BACKBONES[name].md5 is not None)
        assert str(BACKBONES[name].md5 or "") in message
        assert capfd.readouterr().out == ""
        assert not local_imagenet_file(name).exists()

    def test_a_connection_that_breaks(self, home, download):
        download(ConnectionResetError(104, "Connection reset by peer"))
        assert "Connection reset" in refused(load_backbone("vgg16", input_size=SIZE))

    def test_a_download_of_another_file(self, home, download, capfd):
        download(b"<html>log in to the hotel's network</html>")
        message = refused(load_backbone("vgg16", input_size=SIZE))
        assert BACKBONES["vgg16"].md5 in message
        assert capfd.readouterr().out == ""

    def test_what_was_fetched_is_used(self, home, download, saved, capfd):
        """MobileNet's file, for which Keras states no checksum."""
        download(saved(MOBILENET).read_bytes())
        backbone = load_backbone(MOBILENET, input_size=SIZE)
        assert backbone.weights_file == home / "models" / "mobilenet_7_5_224_tf_no_top.h5"
        assert backbone.weights_file.read_bytes() == saved(MOBILENET).read_bytes()
        assert capfd.readouterr().out == ""

    def test_where_the_home_is_read_only_keras_takes_another(
        self, home, tmp_path, monkeypatch, saved
    ):
        def get_file(fname, origin, **options):
            return str(saved(MOBILENET))

        monkeypatch.setattr("keras.utils.get_file", get_file)
        assert load_backbone(MOBILENET).weights_file == saved(MOBILENET)

    def test_what_is_there_is_not_fetched(self, home, download, saved):
        download(RuntimeError("no network is asked"))
        path = local_imagenet_file(MOBILENET)
        path.parent.mkdir()
        save_legacy(random_backbone(random_state=1).base, path)
        assert load_backbone(MOBILENET, input_size=SIZE).spec == spec_of(saved(MOBILENET))

    def test_a_damaged_local_file(self, home, download):
        download(RuntimeError("no network is asked"))
        path = local_imagenet_file("vgg16")
        path.parent.mkdir()
        path.write_bytes(b"half of it")
        message = refused(load_backbone("vgg16", input_size=SIZE))
        assert str(path) in message
        assert BACKBONES["vgg16"].md5 in message
        assert "weights=PATH" in message
        assert path.read_bytes() == b"half of it"

    def test_a_damaged_local_file_without_a_checksum(self, home, download):
        download(RuntimeError("no network is asked"))
        path = local_imagenet_file("mobilenet")
        path.parent.mkdir()
        path.write_bytes(b"half of it")
        assert path.name in refused(load_backbone("mobilenet", input_size=SIZE))


def test_nothing_heavy_is_imported_before_it_is_needed(saved):
    """Neither by the package, nor by --help, nor by a backbone and its recipe."""
    script = f"""
        import sys
        import brainfeat
        from brainfeat.extraction.backbones import load_backbone
        from brainfeat.cli import main
        try:
            main(["--help"])
        except SystemExit as done:
            assert not done.code
        load_backbone("vgg16", weights="random").recipe
        load_backbone({MOBILENET!r}, weights={str(saved(MOBILENET))!r}).recipe
        heavy = {{"tensorflow", "keras", "sklearn", "jax", "torch", "matplotlib"}}
        print("heavy:", sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
