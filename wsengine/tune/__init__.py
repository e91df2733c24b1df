"""What `wsengine tune` is made of: the user's pipeline under a feed of this machine, where its threads' time goes, a search
for the setting that serves it best, and the reason for it.

    target ──▶ client (a process for each setting) ──▶ measure, with sampling from outside ──▶ shares
                                                         └──▶ search ──▶ reason ──▶ report

The command line stands in `wsengine.cli.tune`.
"""
