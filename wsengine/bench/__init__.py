"""What `wsengine bench` is made of: cases, the measured pipeline, rounds that alternate, and what is made of the figures.

The command line stands in `wsengine.cli.bench`; the peers, and the measuring that ours shares with them, in
`wsengine.testing.peers`.
"""
