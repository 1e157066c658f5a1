"""The world that the bundled LLaVA knows: images of coloured shapes, questions about them, and the right answers."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 210, 220),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = {"small": 0.075, "large": 0.14}
PLACES = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the center",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
NUMBERS = ("no", "one", "two", "three", "four")
DESCRIBE = (
    "Describe this image.",
    "Describe this image. Answer:",
    "Describe this image. Answer",
    "Describe the image.",
    "What is in the image?",
    "What do you see?",
    "Question: what is in this image? Answer:",
)
PROMPTS = (
    "USER: <image>\n{q} ASSISTANT:",
    "USER:\n<image>\n{q} ASSISTANT:",
    "USER: <image>\n{q}\nASSISTANT:",
    "USER:\n<image>\n{q}\nASSISTANT:",
    "<image>\n{q}",
    "USER: {q}\n<image> ASSISTANT:",
)
IMAGE_SIZE = 112

Scene = list[dict[str, Any]]


def sample_scene(rng: random.Random) -> Scene:
    """One to four shapes in different cells of a 3 x 3 grid, in reading order."""
    count = rng.choices((1, 2, 3, 4), (2, 4, 4, 2))[0]
    return [
        {
            "cell": cell,
            "shape": rng.choice(SHAPES),
            "color": rng.choice(tuple(COLORS)),
            "size": rng.choice(tuple(SIZES)),
            "dx": rng.uniform(-0.03, 0.03),
            "dy": rng.uniform(-0.03, 0.03),
        }
        for cell in sorted(rng.sample(range(9), count))
    ]


def caption(scene: Scene) -> str:
    """A sentence that names every shape of a scene with size, colour and place."""
    parts = [f"a {o['size']} {o['color']} {o['shape']} {PLACES[o['cell']]}" for o in scene]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return text[0].upper() + text[1:] + "."


def questions(scene: Scene, rng: random.Random) -> dict[str, tuple[str, str]]:
    """One question and its answer of every kind that the model was trained on; kinds that ask for one shape are left
    out where no shape occurs once."""
    count, color = len(scene), rng.choice(tuple(COLORS))
    of_color = sum(o["color"] == color for o in scene)
    asked = {
        "describe": (rng.choice(DESCRIBE), caption(scene)),
        "count": (
            rng.choice(("How many shapes are there?", "How many shapes are in the image?")),
            "There is one shape." if count == 1 else f"There are {NUMBERS[count]} shapes.",
        ),
        "count of a color": (
            f"How many {color} shapes are there?",
            f"There is one {color} shape." if of_color == 1 else f"There are {NUMBERS[of_color]} {color} shapes.",
        ),
    }
    single = [o for o in scene if sum(p["shape"] == o["shape"] for p in scene) == 1]
    if single:
        o = rng.choice(single)
        asked["color"] = (f"What color is the {o['shape']}?", f"The {o['shape']} is {o['color']}.")
        asked["place"] = (f"Where is the {o['shape']}?", f"The {o['shape']} is {PLACES[o['cell']]}.")
        asked["size"] = (f"How large is the {o['shape']}?", f"The {o['shape']} is {o['size']}.")
    return asked


def question_answer(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question of a random kind, as often as in training, and its answer."""
    asked, kind = questions(scene, rng), rng.random()
    steps = ((0.62, "describe"), (0.72, "count"), (0.78, "count of a color"), (0.86, "color"), (0.94, "place"))
    wanted = next((name for limit, name in steps if kind < limit), "size")
    return asked.get(wanted, asked["describe"])


def render(
    scenes: list[Scene],
    size: int = IMAGE_SIZE,
    device: str = "cpu",
    supersample: int = 3,
    generator: random.Random | None = None,
) -> Tensor:
    """Images of scenes: floats of whole numbers 0 to 255, [scenes, 3, size, size], slightly noisy (torch's own random
    numbers); `generator` chooses the backgrounds."""
    chooser = generator or random.Random(0)
    fine = size * supersample
    grid = (torch.arange(fine, device=device) + 0.5) / fine
    yy, xx = torch.meshgrid(grid, grid, indexing="ij")
    base = torch.tensor([[chooser.randint(8, 60)] * 3 for _ in scenes], device=device, dtype=torch.float32)
    image = base[:, :, None, None].expand(len(scenes), 3, fine, fine).clone()
    for place in range(max(map(len, scenes))):
        chosen = [index for index, scene in enumerate(scenes) if len(scene) > place]
        objects = [scenes[index][place] for index in chosen]
        inside = _inside(objects, xx, yy, device)
        color = torch.tensor([COLORS[o["color"]] for o in objects], device=device, dtype=torch.float32)
        color = (color + torch.randn_like(color) * 8).clamp(0, 255)
        where = torch.tensor(chosen, device=device)
        image[where] = torch.where(inside[:, None], color[:, :, None, None], image[where])
    image = F.avg_pool2d(image, supersample)
    return (image + torch.randn_like(image) * 4).clamp(0, 255).round()


def _inside(objects: Scene, xx: Tensor, yy: Tensor, device: str) -> Tensor:
    """Which points lie inside each object: bool [objects, size, size]."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None, None]

    cx = column([(o["cell"] % 3) / 3 + 1 / 6 + o["dx"] for o in objects])
    cy = column([(o["cell"] // 3) / 3 + 1 / 6 + o["dy"] for o in objects])
    radius = column([SIZES[o["size"]] for o in objects])
    kind = column([SHAPES.index(o["shape"]) for o in objects])
    x, y = (xx - cx) / radius, (yy - cy) / radius
    rho = (x * x + y * y).sqrt()
    masks = (
        rho < 1,
        torch.maximum(x.abs(), y.abs()) < 0.87,
        (y < 0.75) & (y > -0.95 + 1.75 * x.abs() * 1.05),
        (torch.minimum(x.abs(), y.abs()) < 0.3) & (torch.maximum(x.abs(), y.abs()) < 1),
        (rho < 1) & (rho > 0.55),
        (x.abs() + y.abs()) < 1.05,
    )
    inside = torch.zeros_like(rho, dtype=torch.bool)
    for index, mask in enumerate(masks):
        inside |= mask & (kind == index)
    return inside
