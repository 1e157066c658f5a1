"""The TensorRT-LLM target: everything that knows TensorRT-LLM lives here."""
