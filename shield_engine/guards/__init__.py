"""Guards of other makers on the same rows as ours."""
