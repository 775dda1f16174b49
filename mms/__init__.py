"""mms: a multi-model inference server that never forgets what an operator told it."""

__version__ = "0.1.0"
