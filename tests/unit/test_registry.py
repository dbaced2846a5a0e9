import sys

import pytest

from glmmnet._registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of plug-ins on disk: `one.py`, `two.py` and a private module that must stay unread."""
    folder = tmp_path / "plugins_for_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from glmmnet._registry import Registry\nREGISTRY = Registry('colour', 'plugins_for_test')\n"
    )
    register = "from plugins_for_test import REGISTRY\n@REGISTRY.register({name!r})\nclass Plugin: name = {name!r}\n"
    (folder / "one.py").write_text(register.format(name="scarlet"))
    (folder / "two.py").write_text(register.format(name="indigo"))
    (folder / "_private.py").write_text("raise AssertionError('private modules are not plug-ins')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "plugins_for_test"]:
        del sys.modules[name]


@pytest.fixture
def registry(package) -> Registry:
    from plugins_for_test import REGISTRY

    return REGISTRY


def test_plugins_are_found_by_listing_the_folder(registry):
    assert list(registry) == ["indigo", "scarlet"]
    assert registry["scarlet"].name == "scarlet"


def test_listing_waits_for_the_first_use(registry):
    assert "plugins_for_test.one" not in sys.modules
    assert "indigo" in registry
    assert "plugins_for_test.one" in sys.modules


def test_a_new_file_is_all_it_takes(package, registry):
    (package / "three.py").write_text("from plugins_for_test import REGISTRY\nREGISTRY.register('ochre')(object())\n")
    assert "ochre" in registry


def test_register_hands_the_plugin_back(registry):
    plugin = object()
    assert registry.register("ochre")(plugin) is plugin
    assert registry["ochre"] is plugin


def test_a_misspelt_name_is_answered_with_the_nearest(registry):
    with pytest.raises(ValueError, match=r"There is no colour 'scarlett'; did you mean 'scarlet'\?"):
        registry["scarlett"]


def test_a_name_near_to_none_is_answered_with_all(registry):
    with pytest.raises(ValueError, match=r"There is no colour 'xyz'; known: indigo, scarlet\."):
        registry["xyz"]


def test_contains_needs_an_exact_name(registry):
    assert "scarlett" not in registry
    assert None not in registry
