"""The map of a cache: what it shows and says, what it keeps to itself, and what it refuses."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joining import join_caches
from brainfeat.errors import CacheError, MissingDependencyError, ParameterError
from brainfeat.report import to_map
from brainfeat.report.embedding import embed_images

IMAGES = 80
SVG = "{http://www.w3.org/2000/svg}"
TEXTS = {"splits": ["train", "test"] * (IMAGES // 2), "sources": ["a & b", "c", "", "d"] * 20}


def draw(images=IMAGES, features=8):
    rng = np.random.default_rng(0)
    y = np.arange(images) % 4
    return rng.standard_normal((images, features)) + 3 * np.eye(4, features)[y], y


def drawing_of(page):
    """Parse the drawing of a page."""
    [svg] = re.findall(r"<svg viewBox=\"0 0 2000.*?</svg>", page, re.DOTALL)
    return ElementTree.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )


def colourings_of(page):
    return re.findall(r'type="radio" name="colour" id="by-(\w+)"', page)


def legend_of(page, name):
    [part] = re.findall(rf'<ul class="legend view view-{name}.*?</ul>', page, re.DOTALL)
    return re.findall(r"<span>(.*?)</span>", part)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from support.caches import write_vectors

    X, y = draw()
    path = write_vectors(
        tmp_path_factory.mktemp("map"), X, y, paths=[f"ward-7/{n}.png" for n in range(80)], **TEXTS
    )
    predicted = y.copy()
    predicted[:8] = (y[:8] + 1) % 4
    predicted[8:10] = -1
    return to_map(path, predicted=predicted, doubted=["ward-7/0.png", "ward-7/1.png"])


def test_each_image_is_a_point_in_each_colouring(page):
    assert colourings_of(page) == ["class", "split", "source", "error"]
    drawing = drawing_of(page)
    for group in drawing.iter(f"{SVG}g"):
        if "points" in group.get("class"):
            paths = [path.get("d") for path in group]
            assert sum(path.count("M") for path in paths) == IMAGES
    titles = [circle[0].text for circle in drawing.iter(f"{SVG}circle")]
    assert len(titles) == IMAGES
    assert titles[0] == "glioma, train, a & b, predicted meningioma, label in doubt"
    assert titles[10] == "notumor, train"
    left, top, right, bottom = 0, 0, *map(float, drawing.get("viewBox").split()[2:])
    for circle in drawing.iter(f"{SVG}circle"):
        assert left < int(circle.get("cx")) < right
        assert top < int(circle.get("cy")) < bottom


def test_legends_count_and_describe(page):
    assert legend_of(page, "class")[0] == "glioma (20)"
    assert legend_of(page, "split") == ["test (40)", "train (40)"]
    assert legend_of(page, "source") == ["no source (20)", "a &amp; b (20)", "c (20)", "d (20)"]
    assert legend_of(page, "error") == [
        "predicted as labelled (70)",
        "not checked (2)",
        "predicted as another class (6)",
        "label in doubt (2)",
    ]
    assert "by source: no source 20, a & b 20" in drawing_of(page).find(f"{SVG}desc").text


def test_colours_differ_in_shape_as_well(page):
    [part] = re.findall(r'<g class="points view view-class.*?</g>', page, re.DOTALL)
    looks = re.findall(r'class="(shape-\d)" style="--colour: (.*?)"', part)
    assert len({shape for shape, _ in looks}) == len({colour for _, colour in looks}) == 4


def test_the_page_loads_nothing_and_names_no_file(page):
    assert "ward-7" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "mean nothing" in page
    assert len(page) < 100_000


def test_equal_arguments_give_equal_pages(make_cache):
    path = make_cache(*draw(24))
    assert to_map(path) == to_map(path)
    assert to_map(path) != to_map(path, random_state=1)


def test_only_what_is_known_colours_the_points(make_cache):
    X, y = draw()
    assert colourings_of(to_map(make_cache(X, y))) == ["class"]
    bare = to_map(make_cache(X, np.full(IMAGES, -1), name="bare.h5"))
    assert colourings_of(bare) == ["image"]
    assert legend_of(bare, "image") == ["images (80)"]
    assert "label in doubt" not in bare


def test_names_are_text_and_the_rarest_of_many_are_summed_up(make_cache):
    sources = [f"<i>{min(row // 3, 19):02}</i>\x1b" for row in range(IMAGES)]
    page = to_map(make_cache(*draw(), sources=sources))
    legend = legend_of(page, "source")
    assert legend[0] == "8 more (24)"
    assert legend[-1] == "&lt;i&gt;19&lt;/i&gt;\\x1b (23)"
    assert len(legend) == 13
    assert "<i>" not in page


def test_of_many_images_some_of_each_class_and_split_are_drawn(make_cache):
    X, y = draw(400)
    splits = np.where(np.arange(400) // 4 % 5 == 0, "test", "train")
    path = make_cache(X, y, splits=splits)
    with FeatureCache(path) as cache:
        found = embed_images(cache, max_images=100, random_state=0)
        assert np.bincount(y[found.rows]).tolist() == [25] * 4
        assert (splits[found.rows] == "test").sum() == 20
        assert (np.diff(found.rows) > 0).all()
    assert "100 of 400 images, drawn from each class and split" in to_map(path, max_images=100)


@pytest.mark.parametrize(("images", "features"), [(10, 8), (30, 1)])
def test_few_images_and_one_feature_are_placed(make_cache, images, features):
    rng = np.random.default_rng(0)
    page = to_map(make_cache(rng.standard_normal((images, features)), np.arange(images) % 2))
    assert page.count("<circle") == images


def test_the_title_names_the_bases_of_joined_caches(make_cache):
    X, y = draw()
    one = make_cache(X, y, name="one.h5")
    two = make_cache(X[:, :4], y, name="two.h5", backbone="mobilenet")
    with join_caches([one, two], on="image", names=["a", "b"]) as joined:
        page = to_map(joined)
    assert "<title>Map of a feature cache: vgg16 (a) and mobilenet (b)</title>" in page


def test_what_has_no_map_is_refused(make_cache, monkeypatch):
    X, y = draw()
    with pytest.raises(CacheError, match="has 9 images; a map needs 10 or more"):
        to_map(make_cache(X[:9], y[:9]))
    with pytest.raises(CacheError, match="the same features in all images"):
        to_map(make_cache(np.ones((IMAGES, 4)), y, name="same.h5"))
    path = make_cache(X, y, name="whole.h5")
    with pytest.raises(ParameterError, match=r"shape \(3,\); expected \(80,\)"):
        to_map(path, predicted=[0, 1, 2])
    with pytest.raises(ParameterError, match="max_images is 9"):
        to_map(path, max_images=9)
    X[3, 3] = np.inf
    with pytest.raises(CacheError, match="not finite"):
        to_map(make_cache(X, y, name="infinite.h5"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"brainfeat\[report\]"):
        to_map(path)


class TestCommand:
    def test_it_writes_a_map_with_errors(self, run, make_cache, tmp_path):
        target = tmp_path / "map.html"
        cache = make_cache(*draw())
        result = run("audit", cache, "--map", target)
        assert result.code == 0, result.err
        assert f"{target} written" in result.err
        assert colourings_of(target.read_text(encoding="utf-8")) == ["class", "error"]
        assert "Labels in doubt" not in result.out
        assert run("audit", cache, "--map", target).code == 1
        target.write_text("<title>Evaluation of a brain MRI classifier")
        refused = run("audit", cache, "--map", target, "--overwrite")
        assert "is not a map that brainfeat wrote" in refused.err

    def test_without_labels_it_says_what_is_missing(self, run, make_cache, tmp_path):
        target = tmp_path / "map.html"
        cache = make_cache(draw()[0], np.full(IMAGES, -1))
        result = run("audit", cache, "--map", target)
        assert result.code == 0, result.err
        assert "warning: the map is not coloured by error: " in result.err
        assert colourings_of(target.read_text(encoding="utf-8")) == ["image"]

    def test_what_has_no_map_is_refused_before_the_audit(
        self, run, make_cache, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("brainfeat.leakage.auditing.audit", lambda *args, **rest: 1 / 0)
        X, y = draw()
        result = run("audit", make_cache(X[:9], y[:9]), "--map", tmp_path / "m.html")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "a map needs 10 or more" in result.err

    def test_a_map_of_several_caches_is_refused(self, run, make_cache, tmp_path):
        cache = make_cache(*draw())
        result = run("audit", cache, cache, "--map", tmp_path / "m.html")
        assert (result.code, "--map cannot be used with several" in result.err) == (2, True)
