"""Times as people read them."""


def format_time(seconds: float) -> str:
    """In the unit that fits: ``42 s``, ``10 min``, ``10.0 h``, ``12 days``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 86_400:.0f} days"
