"""What `scripts/token_bench.py` measures: texts, those who count their tokens, and the turns they take.

What a counting process imports from here is plain Python: the peers and the published package have
environments of their own.
"""
