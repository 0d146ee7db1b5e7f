"""fe_pieces: two edges train a model in pieces; a terminal leaves in mid-round."""
