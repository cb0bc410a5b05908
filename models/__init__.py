"""Models as pure functions: some with exact answers, some neural."""
