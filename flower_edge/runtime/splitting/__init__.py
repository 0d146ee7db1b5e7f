"""What passes between `Split` and its devices, and the services that carry it."""
