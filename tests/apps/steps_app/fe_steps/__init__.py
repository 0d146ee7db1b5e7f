"""fe_steps: training in whole messages and in slices."""
