"""What every run needs and nobody edits: the machinery around the model, the data and the loop."""
