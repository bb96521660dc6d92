"""What every run needs and nobody edits: the machinery around the model, the data and the loop."""

TEMPLATE_VERSION = "0.1.0"  # of the template that this project was made from
