"""What the tests of all that is around it need to know of the model."""

SMALL_NETWORK = ["--width=4", "--width_discriminator=4", "--blocks=1"]  # trains in no time
WAITS = False  # no loss asks what is on a GPU, for which the host would wait
