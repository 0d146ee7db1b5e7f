"""Mixed devices: the ServerApp and ClientApp of the scenario."""
