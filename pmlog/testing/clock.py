"""Time that passes when a test says so."""


class VirtualClock:
    """Seconds that only grow, and only by `advance` and `sleep`.

    Called, it answers as `time.monotonic` does, so it goes wherever a clock is an argument.
    For one thread at a time.

    Args:
        now_s: Where it begins.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        """Tell the time.

        Returns:
            Seconds.
        """
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much of it.

        Raises:
            ValueError: It is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back by {-seconds} s")
        self._now_s += seconds

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`: time passes at once.

        Args:
            seconds: How much of it.
        """
        self.advance(max(0.0, seconds))

    def __repr__(self) -> str:
        return f"VirtualClock({self._now_s})"
