"""Runs, jobs, metrics and statistics: how scanners are measured on datasets."""
