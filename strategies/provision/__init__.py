"""Strategies that give every terminal a model of its own size, and merge what comes back."""
