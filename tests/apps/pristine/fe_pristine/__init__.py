"""fe_pristine: a Flower / NumPy app."""
