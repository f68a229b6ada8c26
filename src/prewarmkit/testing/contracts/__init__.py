"""Contract suites: what every implementation of a protocol must do, ours and yours."""
