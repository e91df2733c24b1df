"""Other WebSocket clients as measured clients, each at its fastest honest use, a driver a file.

`catalogue` says which there are and what each needs; `window` measures, ours as well as theirs. A driver is a program of its
own, `python -m wsengine.testing.peers.picows_client URL`, and imports its client only when it runs.
"""
