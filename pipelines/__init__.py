"""The command line and one module per pipeline: the only place that knows all parts."""
