"""Makers of what is committed; not part of the wheel."""
