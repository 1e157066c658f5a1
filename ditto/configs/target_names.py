"""Names of the targets, without importing the targets themselves."""

TARGETS = ("trtllm", "tensorrt", "tensorrt-rtx")
AUTO = "auto"
