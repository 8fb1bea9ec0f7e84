"""A laptop is told by its own battery, not by its mouse's."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from autotrain.probe.power import has_battery


def supply(root, name, **facts):
    folder = root / name
    folder.mkdir()
    for fact, text in facts.items():
        (folder / fact).write_text(f"{text}\n")


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /sys")


@linux
def test_the_machines_own_battery_counts_and_others_do_not(tmp_path):
    supply(tmp_path, "AC", type="Mains")
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device")
    assert has_battery(tmp_path) is False
    supply(tmp_path, "BAT1", type="Battery")
    assert has_battery(tmp_path) is True


@linux
def test_where_no_supply_is_listed_or_none_can_be_read_nothing_is_claimed(tmp_path):
    assert has_battery(tmp_path) is False
    assert has_battery(tmp_path / "nowhere") is None
    (tmp_path / "BAT0").mkdir()
    assert has_battery(tmp_path) is False


@pytest.mark.parametrize(("told", "said"), [(None, False), (SimpleNamespace(percent=80), True)])
def test_elsewhere_psutil_is_asked(told, said, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(psutil, "sensors_battery", lambda: told, raising=False)
    assert has_battery() is said


def test_a_system_where_psutil_cannot_tell_is_left_open(monkeypatch):
    monkeypatch.setattr(sys, "platform", "freebsd14")
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert has_battery() is None
