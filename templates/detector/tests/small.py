"""What the tests of all that is around it need to know of the model."""

SMALL_NETWORK = ["--width=12"]  # trains in no time
WAITS = True  # its loss asks how many pairs there are, for which the host waits for a GPU
