"""Settings: one table, typed and bounded, a file over the defaults and single values over the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.errors import InputError, SettingError
from mggc_edge.settings import SETTINGS, Setting, Settings

DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
NUMBER = Setting("n", 5, "pieces", "a whole number", low=1, high=10)
FRACTION = Setting("f", 0.5, "fraction", "a fraction", low=0)
SWITCH = Setting("s", True, "", "a switch")
TEXT = Setting("t", "fp32", "", "a text")


def test_what_somebody_chose_is_told_from_defaults_even_where_it_is_the_same() -> None:
    assert Settings().given("export.opset") is None
    assert Settings.load(overrides=["export.opset=20"]).given("export.opset") == 20
    chosen = Settings().with_value("export.opset", 17).with_value("bench.pairs", None)
    assert (chosen.given("export.opset"), chosen.given("bench.pairs")) == (17, None)


def refused(*, config: Path | None = None, overrides: tuple[str, ...] = ()) -> SettingError:
    with pytest.raises(SettingError) as caught:
        Settings.load(config, overrides)
    return caught.value


def unread(path: Path) -> str:
    """Return what is said of a file that is no settings file: that is bad input, not a wrong setting."""
    with pytest.raises(InputError) as caught:
        Settings.load(path)
    assert type(caught.value) is InputError
    return caught.value.message


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the table ---


def test_every_default_is_a_value_that_its_setting_takes() -> None:
    assert Settings().to_json() == DEFAULTS
    assert all(setting.parse(setting.default) == setting.default for setting in SETTINGS)
    assert all(setting.meaning and setting.source for setting in SETTINGS)


def test_names_are_sorted_and_occur_once() -> None:
    names = [setting.name for setting in SETTINGS]
    assert names == sorted(set(names))


def test_every_numeric_setting_has_a_lower_bound() -> None:
    # The sentence about bounds begins with it.
    assert [s.name for s in SETTINGS if not isinstance(s.default, str | bool) and s.low is None] == []


# --- one value ---


@pytest.mark.parametrize(
    ("setting", "value", "parsed"),
    [
        (NUMBER, 7, 7),
        (NUMBER, "7", 7),
        (NUMBER, 1, 1),
        (NUMBER, 10, 10),
        (FRACTION, 0.25, 0.25),
        (FRACTION, 1, 1.0),
        (FRACTION, "1e-3", 0.001),
        (FRACTION, 0, 0.0),
        (SWITCH, False, False),
        (SWITCH, "true", True),
        (SWITCH, "False", False),
        (TEXT, "int8", "int8"),
        (TEXT, "7", "7"),
    ],
)
def test_a_value_becomes_its_settings_type(setting: Setting, value: object, parsed: object) -> None:
    found = setting.parse(value)
    assert found == parsed
    assert type(found) is type(setting.default)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (NUMBER, "seven", "setting n must be a whole number, not 'seven'"),
        (NUMBER, "7.0", "setting n must be a whole number, not '7.0'"),
        (NUMBER, 7.0, "setting n must be a whole number, not 7.0"),
        (NUMBER, True, "setting n must be a whole number, not True"),
        (NUMBER, [7], "setting n must be a whole number, not [7]"),
        (NUMBER, None, "setting n must be a whole number, not None"),
        (NUMBER, "", "setting n must be a whole number, not ''"),
        (NUMBER, "1" * 5000, f"setting n must be a whole number, not '{'1' * 5000}'"),
        (FRACTION, "nan", "setting f must be a finite number, not 'nan'"),
        (FRACTION, float("nan"), "setting f must be a finite number, not nan"),
        (FRACTION, False, "setting f must be a finite number, not False"),
        (SWITCH, 1, "setting s must be true or false, not 1"),
        (SWITCH, "yes", "setting s must be true or false, not 'yes'"),
        (TEXT, 3, "setting t must be text, not 3"),
        (NUMBER, 0, "setting n must be at least 1 and at most 10, not 0"),
        (NUMBER, "11", "setting n must be at least 1 and at most 10, not 11"),
        (FRACTION, -0.5, "setting f must be at least 0, not -0.5"),
        (FRACTION, "-inf", "setting f must be a finite number, not '-inf'"),
        (FRACTION, "1e400", "setting f must be a finite number, not '1e400'"),
        (FRACTION, 10**400, "setting f must be a finite number, not 1" + "0" * 56 + "..."),
    ],
)
def test_a_value_of_another_type_or_out_of_bounds_is_refused(setting: Setting, value: object, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        setting.parse(value)
    # Messages of any length are cut in the middle by the error itself.
    assert caught.value.message[:80] == message[:80]


# --- names ---


def test_a_mistyped_name_brings_a_suggestion() -> None:
    error = refused(overrides=("export.opst=18",))
    assert (error.message, error.hint) == ("there is no setting 'export.opst'", "did you mean export.opset?")


def test_a_name_like_no_other_brings_the_way_to_all() -> None:
    error = refused(overrides=("colour=red",))
    assert (error.message, error.hint) == ("there is no setting 'colour'", "`mggc-edge settings` lists all")


def test_an_unknown_name_is_refused_when_read_as_well() -> None:
    with pytest.raises(SettingError, match=r"^there is no setting 'demo\.size'"):
        _ = Settings()["demo.size"]


@pytest.mark.parametrize("text", ["export.opset", "", "export.opset 18"])
def test_an_override_without_an_equals_sign_sets_nothing(text: str) -> None:
    error = refused(overrides=(text,))
    assert (error.message, error.hint) == (f"'{text}' sets nothing", "write NAME=VALUE")


# --- a file ---


def test_the_tables_of_a_toml_file_are_the_parts_of_the_names(tmp_path: Path) -> None:
    config = toml(tmp_path, "[export]\nopset = 18\nsimplify = false\n\n[verify]\natol = 1\n\n[demo]\nbudget = 0.5\n")
    changed = {"export.opset": 18, "export.simplify": False, "verify.atol": 1.0, "demo.budget": 0.5}
    assert Settings.load(config).to_json() == {**DEFAULTS, **changed}


def test_dotted_and_quoted_keys_name_the_same_settings(tmp_path: Path) -> None:
    config = toml(tmp_path, 'export.opset = 18\n"verify.pictures" = 2\n')
    settings = Settings.load(config)
    assert (settings["export.opset"], settings["verify.pictures"]) == (18, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[export]\nopset = 99", "setting export.opset must be at least 13 and at most 23, not 99"),
        ('[export]\nopset = "x"', "setting export.opset must be a whole number, not 'x'"),
        ("[export]\nopset = [20]", "setting export.opset must be a whole number, not [20]"),
        ("[export.opset]\nvalue = 20", "there is no setting 'export.opset.value'"),
        ("opset = 20", "there is no setting 'opset'"),
        ("export = 20", "there is no setting 'export'"),
    ],
)
def test_what_a_file_sets_is_held_to_the_table(text: str, message: str, tmp_path: Path) -> None:
    assert refused(config=toml(tmp_path, text)).message == message


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    config = toml(tmp_path, "[export\nopset = 18")
    message = unread(config)
    assert message.startswith(f"'{config}' is not a TOML file: ")
    assert "line 1" in message


@pytest.mark.parametrize("data", [b"\xff\xfe[export]", b"a=" + b"[" * 100_000], ids=["no text", "deep"])
def test_a_file_that_is_no_text_or_too_deep_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(data)
    assert unread(path).startswith(f"'{path}' is not a TOML file: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.toml"
    assert unread(path) == f"there is no file '{path}'"
    assert unread(tmp_path) == f"there is no file '{tmp_path}'"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert unread(tmp_path / "pipe.toml") == f"there is no file '{tmp_path / 'pipe.toml'}'"


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[export]\nopset = 19\n")
    assert Settings.load(tmp_path / "bom.toml")["export.opset"] == 19


def test_thousands_of_tables_in_each_other_are_refused_and_do_not_crash(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("[" + ".".join("a" * 3000) + "]\nb = 1\n")
    assert "setting" in refused(config=tmp_path / "deep.toml").message


def test_a_number_is_held_to_its_multiple() -> None:
    assert (
        refused(overrides=("demo.image_size=130",)).message
        == "setting demo.image_size must be a multiple of 4, not 130"
    )


# --- what wins ---


def test_single_values_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    config = toml(tmp_path, "[export]\nopset = 18\natol = 0.5\n")
    settings = Settings.load(config, ["export.opset=22", " verify.pictures = 9 "])
    assert (settings["export.opset"], settings["export.atol"], settings["verify.pictures"]) == (22, 0.5, 9)
    assert settings["demo.ngf"] == DEFAULTS["demo.ngf"]


def test_the_last_of_several_single_values_wins() -> None:
    assert Settings.load(overrides=["export.opset=18", "export.opset=19"])["export.opset"] == 19


def test_with_value_gives_other_settings_and_leaves_the_first_alone() -> None:
    first = Settings()
    second = first.with_value("verify.atol", 0.5)
    assert (first["verify.atol"], second["verify.atol"]) == (1e-4, 0.5)
    assert second.with_value("export.opset", 18)["verify.atol"] == 0.5


def test_with_value_none_changes_nothing() -> None:
    first = Settings()
    assert first.with_value("verify.atol", None) is first


@pytest.mark.parametrize(("name", "value"), [("verify.atol", -1.0), ("verify.tol", 1.0)])
def test_with_value_is_held_to_the_table(name: str, value: Any) -> None:
    with pytest.raises(SettingError):
        Settings().with_value(name, value)


def test_the_json_of_settings_cannot_be_used_to_change_them() -> None:
    settings = Settings()
    settings.to_json()["export.opset"] = 18
    assert settings["export.opset"] == 20
