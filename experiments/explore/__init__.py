"""The interactive page of the lecture hall: what `experiments.explore` reads and writes."""
