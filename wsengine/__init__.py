"""A Broadway for Python threads, whose socket keeps running while your code holds the GIL."""
