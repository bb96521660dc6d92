"""A network that trains in no time, for the tests of all that is around it."""

SMALL_NETWORK = ["--width=8"]
