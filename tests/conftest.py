import os

from hypothesis import settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
