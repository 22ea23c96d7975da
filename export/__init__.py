"""PyTorch checkpoint -> ONNX file with its card."""
