"""What the tests of the engine share asserts as tests do, so that pytest shall show the values of those assertions, too."""

import pytest

pytest.register_assert_rewrite("tests.engine.line")
