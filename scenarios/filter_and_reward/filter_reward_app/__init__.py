"""20 terminals in four edges, some of them faulty: what comes back is checked, and what is good is paid."""
