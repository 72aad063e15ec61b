"""What `make bench` runs: ratios within one run, the raw figures kept as JSON."""
