"""Training in short messages, the edge's side: slices, decisions, and what became of the work."""
