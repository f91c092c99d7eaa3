import os

# ONNX Runtime reports every session to its makers unless told otherwise before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
