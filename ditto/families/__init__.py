"""Vision-language families."""

from ditto.families.llava import LlavaModel
from ditto.families.multimodal import MultimodalModel
from ditto.families.registry import family_of

__all__ = ["LlavaModel", "MultimodalModel", "family_of"]
