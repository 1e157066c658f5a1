"""The names of targets, for those who only offer a choice."""

TARGETS = ("tensorrt", "tensorrt-rtx")
AUTO = "auto"
