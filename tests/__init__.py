"""A package, as its folders are, so that a test can import what several share: `tests.waiting`, `tests.engine.line`, ..."""
