"""What `scripts/run_benchmarks.py` measures: contenders, sections, and the processes they run in.

Everything that a contender's process imports from here is plain Python, because the published package
has an environment of its own with nothing else in it.
"""
