"""fe_pieces_stream: three terminals train one model in pieces."""
