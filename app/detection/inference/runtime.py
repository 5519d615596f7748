"""The only module that imports onnxruntime, with its telemetry turned off.

From 1.29 on, onnxruntime by default reports to its maker, including the names of models, as soon as it is imported.
Only an environment variable that is set before the import prevents that.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
