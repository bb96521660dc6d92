"""What the tests of all that is around it need to know of the model."""

SMALL_NETWORK = ["--width=12", "--depth=2", "--stride=1"]  # trains in no time, on small images
WAITS = False  # no loss asks what is on a GPU, for which the host would wait
