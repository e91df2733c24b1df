"""wsengine and its peers on the same bytes, in alternating rounds: `python -m benchmarks.compare --help`."""
