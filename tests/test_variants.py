"""Variants of a head: what a file of them may say, and what each is fitted on."""

import numpy as np
import pytest
from support.layered import WIDTHS, write_layered

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError
from brainfeat.training.ablation_table import ablate
from brainfeat.training.fitting import fit_head
from brainfeat.training.variant_fits import opened_variant
from brainfeat.training.variants import change_options, read_variants

PLAIN = {"head": "lda", "params": {"solver": "svd"}}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_layered(tmp_path_factory.mktemp("layered"), signature=True)


@pytest.mark.parametrize(
    ("variant", "width", "head"),
    [
        ({}, 8, "lda"),
        ({"layer": "block3_pool"}, 4, "lda"),
        ({"layer": "block3_pool+block5_pool"}, 12, "lda"),
        ({"layer": "block3_pool+block5_pool", "how": "vote"}, 12, "vote:lda"),
        ({"head": "stack:lda+knn"}, 8, "stack:lda+knn"),
    ],
)
def test_a_variant_is_fitted_on_its_layers(path, variant, width, head):
    with (
        FeatureCache(path) as cache,
        opened_variant(cache, change_options(PLAIN, variant), random_state=0) as own,
    ):
        found = own.read()
        layers = variant.get("layer", "block5_pool").split("+")
        wanted = np.concatenate([cache.features(name)[found.rows] for name in layers], axis=1)
        assert found.X.shape[1] == width == sum(WIDTHS[name] for name in layers)
        assert np.array_equal(found.X, wanted)
    assert own.recipes[0].head == head
    name = "lda.solver" if "how" in variant else "solver"
    assert own.recipes[0].params == ({name: "svd"} if "head" not in variant else {})


def test_layers_are_found_again_in_another_data_set(path, tmp_path):
    other = write_layered(
        tmp_path, seed=3, contents=[f"other {row}" for row in range(120)], signature=False
    )
    variants = {
        "layers": {"layer": "block3_pool+block5_pool"},
        "no such layer": {"layer": "block9_pool"},
    }
    found = ablate(path, variants, head="lda", on=other, cv=2, n_jobs=1)
    layers, missing = found.variants
    assert layers.elsewhere is not None
    assert "block9_pool" in missing.error
    cv = fit_head(path, head="lda", cv=2).training.cv
    assert found.folds.balanced_accuracy == pytest.approx(cv.out_of_fold.balanced_accuracy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nheads = 'svm'", "variant 'a' has the key 'heads'; did you mean 'head'?"),
        ("[a]\nqqq = 1", "variant 'a' has the key 'qqq'; expected one of head, params"),
        ("[a]\nhead = 5", "variant 'a': head must be a text, got 5"),
        ("[a]\nn_iter = true", "variant 'a': n_iter must be a number, got True"),
        ("[a]\nfeatures = [1]", "variant 'a': features must be a path, or several, got [1]"),
        ("a = 1", "'a' is not a variant; expected a table of options"),
        ("[plain]", "'plain' is the head that variants are compared with; rename it"),
        ("", "0 variants; expected 1 to 100"),
        ("[a", "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML: "),
        ("#" * 2_000_000, "has more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_list_of_variants_is_refused(tmp_path, text, message):
    path = tmp_path / "variants.toml"
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        read_variants(path)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="cannot be read"):
        read_variants(tmp_path / "no.toml")
    (tmp_path / "bytes.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ParameterError, match="is not UTF-8 at byte 5"):
        read_variants(tmp_path / "bytes.toml")
    with pytest.raises(ParameterError, match='head="all" compares heads'):
        ablate(tmp_path / "no.h5", {"a": {}}, head="all")
    with pytest.raises(ParameterError, match="cv must be a number of folds of 2 or more"):
        ablate(tmp_path / "no.h5", {"a": {}}, cv=1)
