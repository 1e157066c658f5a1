"""GOT-OCR 2 and PP-Chart2Table: a tower with relative positions in windows, and convolutions that shrink its grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from attrs import evolve, frozen
from typing_extensions import override

from ditto.errors import CheckpointError, TreeError
from ditto.families.encoder import Encoder, pair, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor, model_config
from ditto.runtime.encoding import EncodedPrompt
from ditto.wrappers.features import ImageFeatures


@frozen
class GotOcr2Preprocessor(TilePreprocessor):
    """Preprocessor whose processor takes no prompt without an image."""

    needs_image: ClassVar[bool] = True


@frozen
class Chart2TablePreprocessor(GotOcr2Preprocessor):
    """Preprocessor whose processor leaves it to the prompt how many image tokens there are.

    A prompt has one for each image; the preprocessor repeats it.

    Args:
        rows: image tokens of an image; None until `configured`.
    """

    rows: int | None = None

    @override
    def configured(self, directory: str | Path | None) -> Chart2TablePreprocessor:
        if directory is None:
            return self
        return evolve(self, rows=_rows(model_config(directory)))

    @override
    def placeholder(self, processor: Any) -> str:
        return "<imgpad>"

    @override
    def encode(
        self, processor: Any, text: str, images: Sequence[Any], *, add_special_tokens: bool = True
    ) -> EncodedPrompt:
        if self.rows is None:
            raise TreeError(
                "the tree has no config.json of the model, from which the number of image tokens follows",
                remedy="build the tree from a checkpoint directory, or name that with --hf-model",
            )
        token = self.placeholder(processor)
        text = text.replace(token, token * self.rows)
        return super().encode(processor, text, images, add_special_tokens=add_special_tokens)


@frozen(kw_only=True, slots=False)
class GotOcr2Model(MultimodalModel):
    """`GotOcr2ForConditionalGeneration`."""

    model_type: ClassVar[str] = "got_ocr2"
    preprocessor: ClassVar[Preprocessor] = GotOcr2Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        (side, across), (patch, wide) = (pair(name, getattr(vision, name)) for name in ("image_size", "patch_size"))
        if side != across or patch != wide:
            raise CheckpointError(
                f"the tower has images of {side} by {across} pixels and patches of {patch} by {wide}",
                remedy="use a tower of square images and patches",
            )
        return Encoder(
            inputs={"input": tile(vision.num_channels, side, side)}, module=ImageFeatures, rows=_rows(config)
        )


@frozen(kw_only=True, slots=False)
class Chart2TableModel(GotOcr2Model):
    """`GotOcr2ForConditionalGeneration` of PP-Chart2Table."""

    model_type: ClassVar[str] = "pp_chart2table"
    preprocessor: ClassVar[Preprocessor] = Chart2TablePreprocessor()


def _rows(config: Any) -> int:
    """Image tokens of an image: two convolutions halve each side of the grid, rounded up."""
    vision = config.vision_config
    side, patch = (pair(name, getattr(vision, name))[0] for name in ("image_size", "patch_size"))
    return (-(-(side // patch) // 4)) ** 2
