"""The Autobahn test suite against this package's client. Nothing of it is shipped; `README.md` has the commands."""
