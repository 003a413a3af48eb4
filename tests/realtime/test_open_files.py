"""The soft limit of open files is raised to what the calls need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from realtime import open_files
from realtime.settings import LimitSettings, Settings

resource = pytest.importorskip("resource")

TRY = """
import resource
from realtime import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))
print(open_files.allowed(), open_files.ensure(100), open_files.ensure(1000), open_files.ensure(5000))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_every_call_there_may_be_is_counted():
    few, many = (Settings(limits=LimitSettings(calls=calls)) for calls in (1, 101))
    assert open_files.needed(many, 3) - open_files.needed(few, 3) == 100 * (3 + open_files.OF_A_CALL)


def test_the_soft_limit_goes_up_as_far_as_the_hard_one_lets_it():
    said = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:2] == ["2048 256 1000 2048", "(2048, 2048)"]
