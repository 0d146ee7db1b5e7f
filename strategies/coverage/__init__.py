"""Terminals that move: who is in range, what becomes of one that leaves, handover."""
