import subprocess
import sys

import pytest

from decodec_jax.errors import UserError
from decodec_jax.launching import one_line


def test_a_users_mistake_is_one_line_and_exit_code_two(capsys):
    with pytest.raises(SystemExit) as ended, one_line("measure.py"):
        raise UserError("there is no folder runs/x")
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "measure.py: there is no folder runs/x\n")


@pytest.mark.parametrize("error", [KeyError("a bug"), SystemExit(75), OSError("perhaps passing")])
def test_anything_else_is_left_alone(error, capsys):
    with pytest.raises(type(error)) as caught, one_line("measure.py"):
        raise error
    assert caught.value is error and capsys.readouterr().err == ""


HELD = """
from pathlib import Path
import numpy as np
from decodec_jax.launching import keep_freed_memory
{begin}
np.ones(16_000_000)  # 128 MB, freed at once
print(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's")
def test_what_is_freed_is_kept():
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", HELD.format(begin=begin)], capture_output=True, check=True).stdout)
        for begin in ("", "keep_freed_memory()")
    )
    assert kept > given_back + 100_000  # kB
