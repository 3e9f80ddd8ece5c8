"""Two-stage e-commerce recommenders: composed from configs, honest in time, tracked and diagnosed."""

import os
import warnings

# Threads of LightGBM and its like that wait for each other shall sleep, not spin: on busy cores spinning is ten times slower.
# OpenMP reads this once, when the first library that uses it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# In a notebook implicit and optuna import tqdm, which asks for a widget; their bars are never shown here.
warnings.filterwarnings("ignore", "IProgress not found")

__version__ = "0.1.0"
