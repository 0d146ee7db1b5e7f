"""fe_joined: three workers gossip, one of them the server; through shared memory and through the server."""
