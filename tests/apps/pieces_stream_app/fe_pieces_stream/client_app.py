"""fe_pieces_stream: a terminal."""

from .task import client

app = client()
