"""Ways to show a benchmark result."""
