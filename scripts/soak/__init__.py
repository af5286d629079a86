"""The parts of `scripts/soak.py`: a real server under load, disturbed for an hour, and judged."""
