"""Recipes as files: shipped ones, the user's own, and what one is based on."""

import pytest

from autotrain import files
from autotrain.errors import AutotrainError, UsageError
from autotrain.recipe import names, own_folder, read_recipe

SHIPPED = ["aggressive", "conservative", "finetune", "overfit", "regularized"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a recipe of the user's own."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))
    own_folder().mkdir(parents=True)

    def to(name, text, folder=None):
        path = (folder or own_folder()) / f"{name}.toml"
        path.write_text(text)
        return path

    return to


def settings(name):
    """All that a recipe sets, in the end."""
    found = {}
    for recipe in read_recipe(name).recipes:
        found |= recipe.settings
    return found


def fault(name):
    with pytest.raises(UsageError) as caught:
        read_recipe(name)
    return caught.value


def test_five_recipes_are_shipped():
    assert files.shipped_names("recipes") == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_reads(name):
    (recipe,), _, _ = read_recipe(name)
    assert recipe.name == name
    assert recipe.source


def test_a_recipe_of_ones_own_is_found_by_its_name(write):
    write("mine", '[settings]\n"optimizer.lr" = 1\n[options]\nwidth = 3\n')
    (recipe,), options, _ = read_recipe("mine")
    assert (recipe.name, recipe.source) == ("mine", "the recipe mine.toml")
    assert recipe.settings == {"optimizer.lr": 1.0}
    assert options == {"width": 3}
    assert names() == sorted([*SHIPPED, "mine"])


def test_a_recipe_is_read_by_path_too(write, tmp_path):
    own = write("mine", 'source = "me"\n[settings]\n"train.epochs" = 3\n', tmp_path)
    (recipe,), _, _ = read_recipe(str(own))
    assert (recipe.source, recipe.settings) == ("me", {"train.epochs": 3})
    with pytest.raises(AutotrainError, match=r"none\.toml: No such file"):
        read_recipe(str(tmp_path / "none.toml"))


def test_what_a_recipe_is_based_on_comes_before_it(write):
    write("mine", 'based_on = "conservative"\n[settings]\n"train.epochs" = 3\n[options]\nwidth=1\n')
    base, own = read_recipe("mine").recipes
    assert (base.name, own.settings) == ("conservative", {"train.epochs": 3})
    assert settings("mine")["optimizer.lr"] == 3e-4
    assert read_recipe("mine").options == {"dropout": 0.3, "width": 1}
    write("gentler", 'based_on = "mine"\n[settings]\n"optimizer.lr" = 1e-5\n[options]\nwidth=2\n')
    assert [r.name for r in read_recipe("gentler").recipes] == ["conservative", "mine", "gentler"]
    assert settings("gentler")["train.epochs"] == 3
    assert read_recipe("gentler").options == {"dropout": 0.3, "width": 2}


def test_a_base_may_be_a_file_beside_it(write, tmp_path):
    write("base", "[settings]\ntrain.epochs = 7\n", tmp_path)
    own = write("mine", 'based_on = "base.toml"\n', tmp_path)
    assert settings(str(own)) == {"train.epochs": 7}


def test_ones_own_replaces_a_shipped_one_and_may_be_based_on_it(write):
    write("conservative", 'based_on = "conservative"\n[settings]\n"train.epochs" = 3\n')
    assert settings("conservative")["train.epochs"] == 3
    assert settings("conservative")["optimizer.lr"] == 3e-4
    assert names() == SHIPPED


def test_recipes_based_on_each_other_are_refused(write):
    write("one", 'based_on = "two"\n')
    write("two", 'based_on = "one"\n')
    assert "two.toml: based_on: goes in a circle: one.toml -> two.toml -> one.toml" in str(
        fault("one")
    )
    write("self", 'based_on = "self"\n')
    assert "goes in a circle: self.toml -> self.toml" in str(fault("self"))


def test_a_name_misspelt_gets_a_suggestion_the_list_and_where_own_ones_go(write):
    write("gentle", "")
    error = fault("gentel")
    assert error.message == "no recipe 'gentel' (did you mean 'gentle'?)"
    listed = "aggressive, conservative, finetune, gentle, overfit, regularized"
    assert error.hint.startswith(f"recipes: {listed}; your own go in {own_folder()} as NAME.toml")


def test_a_file_that_lies_here_is_named(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("local", "", tmp_path)
    assert "local.toml lies here" in fault("local").message


@pytest.mark.parametrize("name", ["../conservative", "", "mine/", "/etc/passwd"])
def test_a_name_is_no_path(write, name):
    assert fault(name).message.startswith("no recipe")


def test_all_faults_are_told_with_file_and_key(write):
    path = write(
        "mine",
        '[settings]\n"optimizer.lr" = -1\n"batch.size" = 1\n"task.data" = "x"\n'
        '[[sizes]]\nsettings."train.epochs" = 0\n'
        '[optimizers.sgd]\n"optimizer.momentum" = 1\n"optimizer.name" = "adam"\n',
    )
    said = fault("mine").faults
    assert all(line.startswith(f"{path}: ") for line in said)
    keys = ("optimizer.lr: -1", "batch.size: unknown key", "task.data: is named on the command")
    tables = ("sizes 1: train.epochs: 0", "optimizers.sgd: optimizer.momentum: 1", "is sgd there")
    for key in (*keys, *tables):
        assert any(key in line for line in said), key
    assert len(said) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[setings]\n", "setings: unknown key (did you mean 'settings'?)"),
        ("[optimizers.adamx]\n", "adamx"),
        ('based_on = "conservativ"\n', "based_on: no recipe 'conservativ' (did you mean"),
        ("based_on = 3\n", "based_on: 3 should be a valid string"),
        ("most_samples = 0\n", "most_samples: 0"),
        ("[settings\n", "not valid TOML"),
        ("[options]\nwidth = [1]\n", "options.width"),
    ],
)
def test_a_malformed_recipe_names_its_file_and_key(write, text, said):
    path = write("mine", text)
    assert str(path) in fault("mine").message
    assert said in fault("mine").message


def test_settings_may_be_nested_as_toml_nests_them(write):
    write("mine", "[settings.optimizer]\nlr = 1e-4\n[settings]\ntrain.epochs = 2\n")
    assert settings("mine") == {"optimizer.lr": 1e-4, "train.epochs": 2}
