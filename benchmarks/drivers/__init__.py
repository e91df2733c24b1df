"""The measured clients: each is a small program, run in a process of its own, that prints one line of JSON.

What a client does is in the file of its name; how a stretch of time is measured, the same for all, is in window.py.
"""
