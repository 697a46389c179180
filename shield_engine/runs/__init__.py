"""Runs: a dataset version scored once, in the background, resumed after a crash, carried as a bundle."""
