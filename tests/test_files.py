import contextlib
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotrain import files, parsing
from autotrain.errors import AutotrainError, UsageError


def disk_is_full(*_):
    raise OSError(28, "No space left on device")


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "plan.toml"
    files.write_atomic(path, "old")
    files.write_atomic(path, "new: \N{BENGALI LETTER KA}")
    assert path.read_bytes() == "new: \N{BENGALI LETTER KA}".encode()
    assert os.listdir(tmp_path) == ["plan.toml"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "plan.toml"
    path.write_text("old")
    monkeypatch.setattr(files.os, call, disk_is_full)
    with pytest.raises(AutotrainError, match="No space left on device") as caught:
        files.write_atomic(path, "new")
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.toml"]


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    path = tmp_path / "plan.toml"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.toml"]


def test_the_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """Without that order a power cut leaves a valid name over an empty file."""
    order = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle):
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def seen_replace(source, target):
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", seen_fsync)
    monkeypatch.setattr(files.os, "replace", seen_replace)
    files.write_atomic(tmp_path / "x", b"content")
    assert order == ["file", "rename", "folder"]


def test_a_missing_folder_is_an_error_in_one_line(tmp_path):
    with pytest.raises(AutotrainError, match="No such file or directory") as caught:
        files.write_atomic(tmp_path / "none" / "plan.toml", "x")
    assert str(tmp_path / "none") in caught.value.message


@pytest.mark.parametrize("raw", [b"", b'{"a": 1', b"\xff\xfe", b'{"a": "\xc3'])
def test_torn_json_reads_as_nothing(tmp_path, raw):
    path = tmp_path / "state.json"
    path.write_bytes(raw)
    assert files.read_json(path) is None
    assert files.read_json(tmp_path / "missing.json") is None


def test_json_is_read_as_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "state.json"
    files.write_atomic(path, '{"clip": "\N{BENGALI LETTER KA}"}')
    assert files.read_json(path) == {"clip": "\N{BENGALI LETTER KA}"}


def test_toml_is_read_with_or_without_the_mark_that_notepad_writes(tmp_path):
    path = tmp_path / "plan.toml"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"[batch]\r\nmicro_batch = 2\r\n")
        assert files.read_toml(path) == {"batch": {"micro_batch": 2}}


@pytest.mark.parametrize(
    "raw", [b"a = ", b"a = \xff", b"a = 1\na = 2", b"a = " + b"9" * 5000, b"a = " + b"[" * 9000]
)
def test_malformed_toml_is_a_usage_error_that_names_the_file(tmp_path, raw):
    path = tmp_path / "plan.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=r"plan\.toml: (not valid TOML|nested)"):
        files.read_toml(path)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_usage_error(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    with contextlib.suppress(UsageError):
        assert isinstance(files.read_toml(path), dict)


def test_toml_over_the_cap_is_refused_unparsed(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "TOML_BYTES", 10)
    path = tmp_path / "plan.toml"
    path.write_text("a = 123456")
    assert files.read_toml(path) == {"a": 123456}
    path.write_text("a = 1234567")
    with pytest.raises(UsageError, match="larger than"):
        files.read_toml(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_toml_that_cannot_be_opened_is_the_users_error(tmp_path, name):
    with pytest.raises(AutotrainError) as caught:
        files.read_toml(tmp_path / name)
    assert caught.value.exit_code == 1


def test_settings_and_cache_live_where_the_platform_keeps_them(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOTRAIN_HOME")
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.config_directory() == tmp_path / "config" / "autotrain"
    assert files.cache_directory() == tmp_path / ".cache" / "autotrain"
    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    assert files.config_directory() == tmp_path / "roaming" / "autotrain"


def test_autotrain_home_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path))
    assert files.config_directory() == files.cache_directory() == tmp_path


def test_shipped_names_are_templates_or_profiles(tmp_path, monkeypatch):
    (tmp_path / "templates" / "speech").mkdir(parents=True)
    (tmp_path / "templates" / "speech" / "task.py").touch()
    (tmp_path / "templates" / "notes").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "laptop.toml").touch()
    (tmp_path / "profiles" / "README.md").touch()
    monkeypatch.setattr(files, "shipped", lambda folder: tmp_path / folder)
    assert files.shipped_names("templates") == ["speech"]
    assert files.shipped_names("profiles") == ["laptop"]
    assert files.shipped_names("nothing") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_neither_read_nor_written(tmp_path):
    """Opened, it would wait for another process."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert files.read_json(pipe) is None
    assert files.first_line(pipe) == ""
    with pytest.raises(AutotrainError, match="not a regular file"):
        files.read_toml(pipe)
    for opened in (files.open_regular, files.append_regular):
        with pytest.raises(OSError, match="not a regular file"):
            opened(pipe)


def test_what_is_appended_comes_behind_what_is_there(tmp_path):
    for word in (b"one ", b"two "):
        with files.append_regular(tmp_path / "log") as file:
            file.write(word)
    assert (tmp_path / "log").read_bytes() == b"one two "


def test_a_text_that_is_no_utf_8_is_refused_and_leaves_the_old_one(tmp_path):
    files.write_atomic(tmp_path / "text", "old")
    with pytest.raises(AutotrainError, match=r"cannot hold \\udcff"):
        files.write_atomic(tmp_path / "text", "a/b\udcff/c")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("text", "old")]
