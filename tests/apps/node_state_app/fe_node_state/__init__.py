"""fe_node_state: one node that counts, and a server that sees it come back after a restart."""
