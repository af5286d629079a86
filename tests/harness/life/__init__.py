"""The life of a server: every way to start it, and whatever happens to it, under load.

`app` is the application, `servers` serve it and `pool` does without one, `client` sends requests all the
time, `judge` says from the answers alone whether limits were exact, `remains` looks for what should be
gone. All of them read one clock, CLOCK_MONOTONIC, which is the same in every process.
"""
