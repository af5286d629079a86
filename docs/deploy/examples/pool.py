import multiprocessing

import fast_litellm

limiter = fast_litellm.SimpleRateLimiter(requests_per_minute=1, burst=20)


def admitted(attempts: int) -> int:
    """How many of so many attempts one worker got through."""
    return sum(limiter.is_allowed("everybody") for _ in range(attempts))


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        print(sum(pool.map(admitted, [10] * 4, chunksize=1)))
