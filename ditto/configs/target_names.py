"""The names of targets, for those who only offer a choice."""

TARGETS = ("trtllm", "tensorrt", "tensorrt-rtx")
AUTO = "auto"
