"""Split learning: each device trains the first layers of its copy of a model, the cloud the rest."""
