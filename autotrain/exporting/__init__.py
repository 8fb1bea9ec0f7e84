"""A trained model for other programs: ONNX, TorchScript, or its weights alone, each checked."""
