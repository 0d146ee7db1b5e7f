"""Devices without torch that learn a rule together."""
