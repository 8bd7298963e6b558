import math

import pytest

from metaseg import registry
from metaseg.errors import InputError


def test_a_known_name_is_looked_up_and_a_plugin_is_imported():
    assert registry.lookup("a", {"a": 1}, field="x") == 1
    assert registry.lookup("math:pi", {}, field="x") == math.pi
    assert registry.lookup("os:path.join", {}, field="x")("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b", r"^x: got 'b', expected one of a, or 'package\.module:name'$"),
        (3, "^x: got 3, expected one of a"),
        ("no_such_package:f", "^x: got .* 'no_such_package' cannot be imported"),
        ("math:tau_squared", "^x: got .* 'math' has no 'tau_squared'"),
        (":f", "^x: got ':f', expected 'package"),
        ("math:", "^x: got 'math:', but 'math' has no ''"),
    ],
)
def test_a_wrong_name_is_named_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        registry.lookup(name, {"a": 1}, field="x")
    assert "\n" not in str(caught.value)
