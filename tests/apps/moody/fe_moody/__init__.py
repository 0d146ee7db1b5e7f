"""fe_moody: a Flower app that ends as its run config says."""
