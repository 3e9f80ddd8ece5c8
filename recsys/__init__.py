"""Two-stage e-commerce recommenders: composed from configs, honest in time, tracked and diagnosed."""

__version__ = "0.1.0"
