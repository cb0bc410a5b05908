"""Models whose answers are known exactly: the oracles of tests and experiments."""
