"""Arrhythmia classifiers: networks from millivolts to logits, their training, fine-tuning and metrics."""

KINDS = ("resnet1d", "inception_time", "xresnet1d")
"""The kinds of network, here so that the command line's help can name them without TensorFlow; see `networks.BUILDERS`."""
