"""Vision-language models: two builders with consistent settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from typing_extensions import Self

from ditto.configs.build import positive
from ditto.engine import EngineTree
from ditto.errors import CheckpointError, at
from ditto.families.encoder import Encoder
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.families.registry import find_family, supported_types
from ditto.wrappers.features import embeddings, features_owner
from ditto.wrappers.llm import StandIn

if TYPE_CHECKING:  # running a tree needs families, and no builder
    from ditto.builders import EngineBuilder, LlmBuilder, ModelSource, VisionBuilder
    from ditto.configs import TensorRTConfig, TrtllmConfig


@frozen(kw_only=True, slots=False)
class MultimodalModel(ABC):
    """Base class of vision-language families: both builders, configured together.

    A family is a subclass that states its encoder and, where the default does not fit, its preprocessor. `with_*`
    returns a copy and keeps both builders consistent; each builder can also be used alone.

    Args:
        llm, vision: builders of the language model and of the vision engine.
        max_images: images per request.
        max_tiles: tiles per image, for families that cut images into tiles.
    """

    model_type: ClassVar[str]
    """Hugging Face's `model_type`."""

    needs_transformers: ClassVar[int] = 5
    """Oldest major version of transformers whose model and processor the family follows."""

    preprocessor: ClassVar[Preprocessor] = TilePreprocessor()
    """The runtime half: what a tree does with prompts and images."""

    masks_see_types: ClassVar[bool] = True
    """Whether masks of the model may depend on the types of tokens, as its code says; False where they do not."""

    llm: LlmBuilder
    vision: VisionBuilder
    max_images: int = 1
    max_tiles: int = 1

    @classmethod
    @abstractmethod
    def encoder(cls, config: Any) -> Encoder:
        """The encoder of a model with this configuration.

        Raises:
            CheckpointError: the configuration is not supported.
        """

    @classmethod
    def variant(cls, config: Any) -> type[Self]:
        """The family of a model with this configuration: this class, or one for another kind of tower."""
        del config
        return cls

    @staticmethod
    def language_model(model: nn.Module) -> nn.Module:
        """The language model inside a model, with its output embedding.

        By default the model itself, if it runs on embeddings alone, without an image.
        """
        return model

    @classmethod
    def stand_in(cls, config: Any) -> StandIn | None:
        """The token whose embeddings image tokens and some others get; None if all have their own."""
        del config

    @classmethod
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        """Tiles per image at most, as the checkpoint's processor is configured.

        Args:
            processor: settings of the image processor; empty where unknown.
        """
        del config, processor
        return 1

    @classmethod
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Hugging Face's own image embeddings: [rows, width], in the order of the image tokens.

        Args:
            model: Hugging Face's model.
            inputs: the model's inputs beside the tokens, by name.
        """
        owner: Any = features_owner(model)
        return embeddings(owner.get_image_features(**inputs))

    @classmethod
    def from_pretrained(cls, model: str, *, revision: str | None = None) -> Self:
        """Settings for a model in a directory or on the hub.

        Of `MultimodalModel` itself, the family follows from the model's configuration.

        Raises:
            CheckpointError: the model does not exist, or belongs to another family.
        """
        from ditto.builders import Pretrained

        return cls._from_source(Pretrained(str(model), "AutoModelForImageTextToText", revision))

    @classmethod
    def from_model(cls, model: nn.Module) -> Self:
        """Settings for a Hugging Face model in memory."""
        from ditto.builders import InMemory

        return cls._from_source(InMemory(model, getattr(model.config, "_name_or_path", "") or type(model).__name__))

    @classmethod
    def _from_source(cls, source: ModelSource) -> Self:
        from ditto.builders import LlmBuilder, VisionBuilder

        config = source.config
        family = cls._family(config.model_type, source.name).variant(config)
        with at(source.name):
            family._check_transformers()
            encoder = family.encoder(config)
            tiles = family.most_tiles(config, source.image_processor)
        vision = VisionBuilder(
            source=source,
            family=family.model_type,
            inputs=encoder.inputs,
            wrap=encoder.module,
            tokens_per_image=encoder.rows,
            assembly=encoder.assembly,
        )
        return family(
            llm=LlmBuilder(
                source=source,
                language=family.language_model,
                spans=family.preprocessor.spans,
                masks_see_types=family.masks_see_types,
                stand_in=family.stand_in(config),
            ),
            vision=vision,
            max_tiles=tiles,
        )._sized()

    @classmethod
    def _family(cls, model_type: str, where: str) -> type[Self]:
        """The subclass for a model type.

        Raises:
            CheckpointError: there is none, or it is not this one.
        """
        if model_type == getattr(cls, "model_type", None):
            return cls
        if cls is not MultimodalModel:
            raise CheckpointError(
                f"this is a {model_type!r} model, not {cls.model_type!r}",
                where=where,
                remedy="use the family of its model type, or LlmBuilder for a text model",
            )
        family = find_family(model_type)
        if family is None:
            raise CheckpointError(
                f"{model_type!r} is not a supported vision-language family",
                where=where,
                remedy=f"supported: {', '.join(supported_types())}",
            )
        return family  # type: ignore[return-value]

    @classmethod
    def _check_transformers(cls) -> None:
        import transformers

        if int(transformers.__version__.split(".")[0]) < cls.needs_transformers:
            raise CheckpointError(
                f"{cls.model_type!r} models need transformers {cls.needs_transformers}; "
                f"{transformers.__version__} is installed",
                remedy=f"install transformers {cls.needs_transformers}",
            )

    def with_batch(self, maximum: int) -> Self:
        """Accept 1 to `maximum` requests per call.

        The prompt table and the batch of the vision engine grow with it.
        """
        return evolve(self, llm=self.llm.with_batch(maximum))._sized()

    def with_max_images(self, maximum: int) -> Self:
        """Accept up to `maximum` images per request.

        The prompt table, the prompt length and the batch of the vision engine grow with it.
        """
        return evolve(self, max_images=positive("max_images", maximum))._sized()

    def with_max_tiles(self, maximum: int) -> Self:
        """Accept up to `maximum` tiles per image; the processor must be configured for no more."""
        return evolve(self, max_tiles=positive("max_tiles", maximum))._sized()

    def with_vision_batch(self, maximum: int) -> Self:
        """Accept 1 to `maximum` images, or tiles of images, per call of the vision engine."""
        return evolve(self, vision=self.vision.with_batch(maximum))

    def _sized(self) -> Self:
        """The same with the sizes that follow from images, tiles and batch."""
        return evolve(
            self,
            llm=evolve(self.llm, prompt_rows=self.image_tokens_per_request),
            vision=self.vision.with_batch(self.llm.max_batch_size * self.tiles_per_request),
        )

    @property
    def tiles_per_request(self) -> int:
        """Tiles of a request at most."""
        return self.max_images * self.max_tiles

    @property
    def image_tokens_per_request(self) -> int:
        """Image tokens of a request at most; 0 if unknown."""
        if self.vision.assembly is not None:
            return self.vision.assembly.most_rows(self.max_tiles) * self.max_images
        return (self.vision.tokens_per_image or 0) * self.tiles_per_request

    def with_dtype(self, dtype: torch.dtype | str) -> Self:
        """Compute in `dtype`: float32, float16, bfloat16, or `auto` for the model's own."""
        return evolve(self, llm=self.llm.with_dtype(dtype), vision=self.vision.with_dtype(dtype))

    def with_target(self, name: str) -> Self:
        """Build for a target: `trtllm`, `tensorrt`, `tensorrt-rtx`, or `auto`."""
        return evolve(self, llm=self.llm.with_target(name), vision=self.vision.with_target(name))

    def with_compute_capabilities(self, *capabilities: str) -> Self:
        """Build for these GPUs, e.g. `8.9`; without any, build a portable engine."""
        return evolve(
            self,
            llm=self.llm.with_compute_capabilities(*capabilities),
            vision=self.vision.with_compute_capabilities(*capabilities),
        )

    def with_optimize(self, preset: str) -> Self:
        """Use a preset: `portable` (default), `latency` or `size`; settings that are stated win over it."""
        return evolve(self, llm=self.llm.with_optimize(preset), vision=self.vision.with_optimize(preset))

    def with_weights(self, place: str) -> Self:
        """Embed the weights (`embedded`) or pass large ones as inputs (`external`)."""
        return evolve(self, llm=self.llm.with_weights(place), vision=self.vision.with_weights(place))

    def with_engines(self, layout: str) -> Self:
        """Run prefill and decode in one engine (`combined`) or in one each (`separate`)."""
        return evolve(self, llm=self.llm.with_engines(layout), vision=self.vision.with_engines(layout))

    def with_profiles(self, kind: str) -> Self:
        """Use one profile for all shapes of a phase (`dynamic`), or also static ones (`specialized`)."""
        return evolve(self, llm=self.llm.with_profiles(kind), vision=self.vision.with_profiles(kind))

    def with_tuning(self, tuning: str) -> Self:
        """Use the forms that are fast on a compute capability, e.g. `9.0`; `auto`, or `none`."""
        return evolve(self, llm=self.llm.with_tuning(tuning), vision=self.vision.with_tuning(tuning))

    def with_quantization(self, name: str) -> Self:
        """Round the weights of the language model's linear layers to integers: `int4`, `int8`, or `none`."""
        return evolve(self, llm=self.llm.with_quantization(name))

    def with_tensorrt(self, config: TensorRTConfig) -> Self:
        """Use `config` for TensorRT's own settings."""
        return evolve(self, llm=self.llm.with_tensorrt(config), vision=self.vision.with_tensorrt(config))

    def with_trtllm(self, config: TrtllmConfig) -> Self:
        """Use `config` for TensorRT-LLM's version and options (target `trtllm`)."""
        return evolve(self, llm=self.llm.with_trtllm(config), vision=self.vision.with_trtllm(config))

    def with_max_input_len(self, maximum: int) -> Self:
        """Accept prompts of up to `maximum` tokens, image tokens included."""
        return evolve(self, llm=self.llm.with_max_input_len(maximum))

    def with_max_seq_len(self, maximum: int) -> Self:
        """Support up to `maximum` tokens per sequence, prompt and answer together."""
        return evolve(self, llm=self.llm.with_max_seq_len(maximum))

    def with_max_num_tokens(self, maximum: int) -> Self:
        """Accept up to `maximum` tokens per call over the whole batch (packed targets)."""
        return evolve(self, llm=self.llm.with_max_num_tokens(maximum))

    def with_opt_input_len(self, typical: int) -> Self:
        """Optimize for prompts of at most `typical` tokens and not far below that.

        0 for no typical length.
        """
        return evolve(self, llm=self.llm.with_opt_input_len(typical))

    def with_prompt_table(self, rows: int) -> Self:
        """Accept `rows` image tokens over the batch."""
        return evolve(self, llm=self.llm.with_prompt_table(rows))

    @property
    def builders(self) -> dict[str, EngineBuilder]:
        """The builders, by the directory of their component."""
        return {"vision": self.vision, "llm": self.llm}

    def build_all(self, out: str | Path, *, force: bool = False) -> EngineTree:
        """Build both engines into one tree.

        Args:
            force: rebuild both even if the existing tree has identical engines.
        Raises:
            DittoError: the build failed; `out` is unchanged.
        """
        from ditto.builders.pipeline import build

        return build(self.builders, out, force=force)
