"""The one table of options: every setting of a model and of the server, with type, unit, range, default, sources and help."""
