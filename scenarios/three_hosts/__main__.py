"""`python scenarios/three_hosts`: see `three_hosts.main`."""

from three_hosts.main import app

app()
