"""fe_split_app: two devices and a cloud train one divided model over the stream."""
