"""Arrhythmia classifiers: networks from millivolts to logits, their training, fine-tuning and metrics."""

KINDS = ("resnet1d", "inception_time", "xresnet1d")
"""The kinds of network, here so that the command line's help can name them without TensorFlow; see `networks.BUILDERS`."""

MIXINGS = ("proportional", "balancing")
"""How synthetic records are dealt to classes: as the real ones are, or to the rarest first, until all are as frequent."""

AUGMENT = "gain=0.2,shift_seconds=1"
"""How training records are changed unless told otherwise, as `Augmentation.parse` reads it."""
