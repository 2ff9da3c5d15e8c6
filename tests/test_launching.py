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
