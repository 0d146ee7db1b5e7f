"""fe_split_app: a device."""

from .task import client

app = client()
