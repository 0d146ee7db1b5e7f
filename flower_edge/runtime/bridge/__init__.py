"""Between a centre and an edge's own federation: the socket on an edge host, who listens, who dials, who restarts."""
