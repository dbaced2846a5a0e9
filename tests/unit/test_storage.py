"""Saving and loading a fitted model."""

import copy
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from _fits import QUICK, bernoulli, categorical, frame, gaussian, network
from safetensors import safe_open
from safetensors.numpy import save_file

import glmmnet as gn
from glmmnet.errors import DesignError, FitError, FormulaError
from glmmnet.families import FAMILIES, family_from_dict, family_to_dict, resolve


def modelled():
    data = frame().assign(t=np.abs(frame()["y"]) + 0.1)
    data.index = pd.Index([f"r{i}" for i in range(300)], name="row")
    return gn.glmm("t ~ bs(x, df=4) + C(h) + (1 | g)", data, "gamma", dispersion="~ z", weights="w").fit(**QUICK)


def relation():
    index = [f"g{i}" for i in range(13)]
    a = pd.DataFrame(0.3 + 0.7 * np.eye(13), index=index, columns=index)
    return gn.glmm("y ~ x + (1 | gr(g, cov=A))", frame(), context={"A": a}).fit(seed=1)


FITS = {
    "gaussian": gaussian,
    "bernoulli": bernoulli,
    "nuts": lambda: bernoulli(sampler="nuts"),
    "reference": lambda: categorical("bb"),
    "network": lambda: network("y ~ x + nn(x + z) + (1 | g)"),
    "modelled": modelled,
    "relation": relation,
    "no random": lambda: gaussian("y ~ x"),
}


@pytest.mark.filterwarnings("ignore::glmmnet.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", list(FITS))
def test_a_loaded_model_says_the_same(name, tmp_path):
    r = FITS[name]()
    r.save(tmp_path / "model")
    again = gn.load(tmp_path / "model")
    assert str(again.summary()) == str(r.summary())
    pd.testing.assert_frame_equal(again.history, r.history)
    new = frame().head(5).assign(g=["g1", "new", "g2", "g12", "g3"])
    for data in (None, new):
        for level in ("conditional", "marginal"):
            np.testing.assert_array_equal(again.predict(data, level=level), r.predict(data, level=level))
    assert again.predict().index.equals(r.predict().index) and again.predict().index.name == r.predict().index.name
    np.testing.assert_array_equal(again.simulate(2), r.simulate(2))
    assert repr(again.family) == repr(r.family) and again.fitted.config == r.fitted.config


def test_results_are_pickled_with_their_context_and_copied_as_they_are():
    r = gn.glmm("y ~ scaled(x) + (1 | g)", frame(), context={"scaled": np.tanh}).fit(seed=1)
    again = pickle.loads(pickle.dumps(r))
    assert str(again.summary()) == str(r.summary())
    np.testing.assert_array_equal(again.predict(frame().head(3)), r.predict(frame().head(3)))
    assert copy.deepcopy(r) is r


def test_what_only_code_could_make_is_asked_for(tmp_path):
    def factory(n_inputs: int, n_outputs: int) -> torch.nn.Module:
        return torch.nn.Linear(n_inputs, n_outputs)

    r = gn.glmm("y ~ nn(x, net='mine') + double(z) + (1 | g)", frame(), networks={"mine": factory}, context=CONTEXT)
    r = r.fit(seed=1, epochs=2)
    r.save(tmp_path / "model")
    with pytest.raises(DesignError, match="double"):
        gn.load(tmp_path / "model", networks={"mine": factory})
    with pytest.raises(FormulaError, match="mine"):
        gn.load(tmp_path / "model", context=CONTEXT)
    again = gn.load(tmp_path / "model", context=CONTEXT, networks={"mine": factory})
    np.testing.assert_array_equal(again.predict(frame().head(3)), r.predict(frame().head(3)))
    with pytest.raises(FitError, match="do not fit the network"):
        gn.load(tmp_path / "model", context=CONTEXT, networks={"mine": lambda i, o: torch.nn.Linear(i, o, bias=False)})


CONTEXT = {"double": lambda z: 2 * z}


def test_a_file_cannot_smuggle_code_into_a_formula(tmp_path):
    gaussian("y ~ x").save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="numpy") as file:
        record = json.loads(file.metadata()["glmmnet"])
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    for formula in ("y ~ __import__('os').getpid()", "y ~ x.to_csv('stolen')", "y ~ eval('1')"):
        record["state"]["formula"] = formula
        save_file(arrays, tmp_path / "model", {"glmmnet": json.dumps(record)})
        with pytest.raises((FormulaError, DesignError)):
            gn.load(tmp_path / "model").predict(frame())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        gn.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("no model")
    save_file({"a": np.zeros(1)}, tmp_path / "arrays")
    save_file({"a": np.zeros(1)}, tmp_path / "later", {"glmmnet": json.dumps({"layout": 99})})
    for name, why in (("text", "no model saved"), ("arrays", "no model saved"), ("later", "later version")):
        with pytest.raises(FitError, match=why):
            gn.load(tmp_path / name)


@pytest.mark.parametrize("given", [{"context": "A"}, {"networks": 5}])
def test_what_is_no_mapping_is_refused_by_name(tmp_path, given):
    path = tmp_path / "model"
    gaussian().save(path)
    with pytest.raises(TypeError, match=f"{next(iter(given))}=.* must be a mapping"):
        gn.load(path, **given)


def test_a_damaged_file_is_refused(tmp_path):
    gaussian("y ~ x + (1 | g)").save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="numpy") as file:
        record = json.loads(file.metadata()["glmmnet"])
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    records = [{k: v for k, v in record.items() if k != name} for name in record]
    for bad in (
        3,
        None,
        "layout",
        record | {"layout": "x"},
        record | {"history": 17},
        record | {"family": 17},
        *records,
    ):
        save_file(arrays, tmp_path / "bad", {"glmmnet": json.dumps(bad)})
        with pytest.raises(FitError, match="no model saved"):
            gn.load(tmp_path / "bad")
    save_file(arrays, tmp_path / "bad", {"glmmnet": "[" * 100_000})
    with pytest.raises(FitError, match="no model saved"):
        gn.load(tmp_path / "bad")
    for name in ("X", "draws.b", "random.0.index", "params.sigma.0"):
        rest = {k: v for k, v in arrays.items() if k != name}
        save_file(rest, tmp_path / "bad", {"glmmnet": json.dumps(record)})
        with pytest.raises(FitError, match="damaged"):
            gn.load(tmp_path / "bad")


def test_a_path_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        gaussian("y ~ x").save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="missing"):
        gaussian("y ~ x").save(tmp_path / "missing" / "model")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_row_labels_of_several_levels_are_kept(tmp_path):
    data = frame().assign(day=pd.Timestamp("2026-01-01")).set_index(["h", "day"], drop=False).rename_axis(["a", None])
    r = gn.glmm("y ~ x", data).fit(seed=1)
    r.save(tmp_path / "model")
    pd.testing.assert_series_equal(gn.load(tmp_path / "model").predict(), r.predict())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families_are_made_again(name):
    for family in (resolve(name), *(FAMILIES[name](link=link.name) for link in FAMILIES[name].links)):
        again = family_from_dict(json.loads(json.dumps(family_to_dict(family))))
        assert repr(again) == repr(family) and type(again) is type(family)


def test_options_of_families_are_kept_and_own_families_refused():
    for family in (
        gn.families.Cumulative(order=("b", "a")),
        gn.families.StudentT(df=None),
        gn.families.Tweedie(power=1.2),
        gn.families.Categorical(reference="a", class_cov="us"),
    ):
        again = family_from_dict(family_to_dict(family))
        assert again.options == family.options
    own = type("Own", (type(resolve("gaussian")),), {})()
    with pytest.raises(FitError, match="a family of your own"):
        family_to_dict(own)
