"""Which guard, in which mode, at which threshold: candidates on the same rows, compared and chosen."""
