"""From a picture to detections: the ONNX model, its input, its output boxes, and tiles of large pictures."""
