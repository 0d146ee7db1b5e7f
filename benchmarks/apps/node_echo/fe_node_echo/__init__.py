"""fe_node_echo: messages that cost nothing, count, train or fail, to one node after the other, each timed."""
