"""Real servers, honest fakes and contract suites, for our tests and for a host's."""
