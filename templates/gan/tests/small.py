"""What the tests of all that is around it need to know of the model."""

SMALL_NETWORK = ["--width=8", "--latent_size=8"]  # trains in no time
WAITS = False  # no loss asks what is on a GPU, for which the host would wait
