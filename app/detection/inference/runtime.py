"""onnxruntime, silenced: to be imported from here and from nowhere else.

From 1.29 on it reports to its maker by default, the names of models included, and starts to do so when it is imported:
only the environment can forbid it before that.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
