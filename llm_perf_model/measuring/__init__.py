"""The machine at hand, measured: models, networks and operators as records."""
