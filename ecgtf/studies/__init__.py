"""The paper's experiments as resumable tables: what synthetic ECGs add to real ones, and what a classifier learns from them first."""

STUDIES = ("augmentation", "transfer")
"""The studies that there are, here so that the command line can name them without TensorFlow."""
