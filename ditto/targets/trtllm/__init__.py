"""The TensorRT-LLM target; code that depends on TensorRT-LLM lives only here."""
