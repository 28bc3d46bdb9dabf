from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rdlite.errors import OptionError
from train.__main__ import main
from train.config import TrainConfig
from train.recipes import TABLE3, built_in, list_recipes, load_recipe, make_config

SWITCHES = (
    "res2block light_head soft_nms giou class_weights iou_guided multi_task".split()
)  # the columns of the paper's Table 3
TICKS = """
a .......
b x......
c xx.....
d xxx....
e xxx.x..
f xxx..x.
g xxx...x
h xxxx...
i xxxxx..
j xxxx.x.
k xxxx..x
l xxxxxx.
m xxxx.xx
n xxxxx.x
o xxxxxxx
"""
FOLDERS = {"data": "a.json", "images": "images", "out": "out"}


@pytest.fixture
def recipe(tmp_path: Path):
    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_rows_set_the_ticks_of_table_3_and_nothing_else() -> None:
    table = dict(line.split() for line in TICKS.split("\n") if line)
    assert list(table) == list(TABLE3)
    for row, ticks in table.items():
        assert load_recipe(row) == dict(zip(SWITCHES, (t == "x" for t in ticks), strict=True)), row


def test_basic_and_advanced_are_the_papers_configurations() -> None:
    basic, advanced = make_config(["basic"], FOLDERS), make_config(["advanced"], FOLDERS)
    for config, lr in ((basic, 4e-3), (advanced, 1e-2)):
        assert (config.optimizer, config.lr, config.schedule) == ("sgd", lr, "step")
        assert (config.weight_decay, config.batch, config.epochs) == (5e-4, 128, 250)
        assert (config.warmup, config.clip, config.ema, config.precision) == (0, 0, 0, "fp32")
        assert config.resolution == "320"
    for name in SWITCHES:
        assert getattr(basic, name) == (name in ("res2block", "light_head"))
        assert getattr(advanced, name)


def test_options_go_before_recipes_and_recipes_before_defaults(recipe) -> None:
    mine = recipe('extends = "advanced"\nbatch = 32\nlr = 1\ndata = "mine.json"')
    config = make_config([mine], FOLDERS | {"lr": 0.5})
    assert (config.lr, config.batch, config.epochs, config.giou) == (0.5, 32, 250, True)
    assert config.data == "a.json"
    assert config.width == TrainConfig(**FOLDERS).width


def test_a_later_recipe_goes_before_an_earlier_one(recipe) -> None:
    mine = recipe("giou = false\nlr = 3e-3")
    config = make_config(["advanced", mine], FOLDERS)
    assert (config.giou, config.lr, config.multi_task) == (False, 3e-3, True)
    assert make_config([mine, "advanced"], FOLDERS).lr == 1e-2
    assert not make_config(["o", "c"], FOLDERS).giou  # rows replace one another whole


def test_a_file_may_hold_all_that_a_run_needs_and_extend_another_file(recipe) -> None:
    parent = recipe('data = "a.json"\nimages = "i"\nout = "o"\nlr = 2e-3', "parent.toml")
    config = make_config([recipe(f'extends = "{parent}"\nwidth = 48')])
    assert (config.data, config.images, config.out) == ("a.json", "i", "o")
    assert (config.lr, config.width) == (2e-3, 48)


def test_epochs_given_later_go_before_minutes(recipe) -> None:
    short = recipe("minutes = 30")
    assert make_config(["basic", short], FOLDERS).minutes == 30
    assert make_config([short, "basic"], FOLDERS).minutes is None
    assert make_config([short], FOLDERS | {"epochs": 2.0}).minutes is None


def test_recipes_and_options_go_before_what_a_run_began_with(recipe) -> None:
    saved = FOLDERS | {"lr": 1e-3, "batch": 4, "width": 16, "minutes": 30.0}
    config = make_config([recipe("batch = 8\nepochs = 3")], {"lr": 2e-3}, saved=saved)
    assert (config.width, config.batch, config.lr) == (16, 8, 2e-3)
    assert (config.minutes, config.epochs) == (None, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gioou = true", "mine.toml: there is no setting 'gioou'; did you mean giou"),
        ("[basic]\nlr = 1", "there is no setting 'basic'"),
        ("giou = 1", "mine.toml: giou must be true or false, got 1"),
        ("batch = 16.0", "mine.toml: batch must be a whole number, got 16.0"),
        ("batch = true", "mine.toml: batch must be a whole number, got True"),
        ("lr = '0.1'", "mine.toml: lr must be a number, got '0.1'"),
        ("optimizer = 'sgdm'", "mine.toml: optimizer must be one of adamw, sgd, got 'sgdm'"),
        ("lr = -1", "mine.toml: lr must be "),
        ("extends = 'advansed'", "mine.toml: extends: there is no recipe 'advansed', .* advanced"),
        ("extends = 3", "mine.toml: extends must be a recipe or a list of them, got 3"),
        ("lr 1", "mine.toml: is no TOML"),
    ],
)
def test_a_bad_recipe_is_named_with_its_key_and_what_would_do(recipe, text, expected) -> None:
    with pytest.raises(OptionError, match=expected):
        make_config([recipe(text)], FOLDERS)


def test_an_option_that_is_out_of_range_is_not_blamed_on_the_recipe(recipe) -> None:
    with pytest.raises(OptionError, match=r"^lr must be .*, got -1"):
        make_config([recipe("lr = 1")], FOLDERS | {"lr": -1.0})


def test_an_unknown_name_gets_the_nearest_and_a_missing_file_its_reason(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no recipe 'basics'.* did you mean basic"):
        load_recipe("basics")
    with pytest.raises(OptionError, match=r"none\.toml: cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))


def test_recipes_that_extend_each_other_are_refused(recipe, tmp_path: Path) -> None:
    first = recipe(f'extends = "{tmp_path / "second.toml"}"', "first.toml")
    recipe(f'extends = "{first}"', "second.toml")
    with pytest.raises(OptionError, match=r"first.toml extends itself: .* > .*second.toml > "):
        load_recipe(first)


def test_what_a_run_cannot_do_without_is_asked_for() -> None:
    with pytest.raises(OptionError, match="images is missing; give --images"):
        make_config(["basic"], {"data": "a.json", "out": "out"})


def test_every_named_recipe_is_valid_and_listed() -> None:
    listed = [line.split()[0] for line in list_recipes().splitlines() if line[0] != " "]
    assert listed == list(built_in()) == [*TABLE3, "basic", "advanced"]
    for name in listed:
        make_config([name], FOLDERS)


def test_help_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    assert exit_.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')} " in said
    assert "(default: adamw)" in said and "(required, here or in a recipe)" in said
