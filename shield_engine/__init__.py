"""LLM Shield engine."""
