"""Draw the images of three workers and an evaluator: pictures/WORKER/CLASS/NUMBER.png.

Stands for folders of your own that look like this.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PICTURES = Path(__file__).parent / "pictures"
CLASSES = ("circle", "cross", "square")
SIZE = 32


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """Return a shape somewhere on a noisy ground, in colours of its own."""
    ground, colour = random.integers(0, 110, 3), random.integers(140, 256, 3)
    noise = random.normal(0, 12, (SIZE, SIZE, 3)) + ground
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    radius = int(random.integers(7, 12))
    x, y = (int(each) for each in random.integers(radius, SIZE - radius, 2))
    box, pen = (x - radius, y - radius, x + radius, y + radius), ImageDraw.Draw(image)
    fill = tuple(int(each) for each in colour)
    if shape == "circle":
        pen.ellipse(box, outline=fill, width=3)
    elif shape == "square":
        pen.rectangle(box, outline=fill, width=3)
    else:
        pen.line(box, fill=fill, width=3)
        pen.line((x - radius, y + radius, x + radius, y - radius), fill=fill, width=3)
    return image


if __name__ == "__main__":
    for seed, worker in enumerate(("paris", "oslo", "rome", "testing")):
        random = np.random.default_rng(seed)
        for shape in CLASSES:
            folder = PICTURES / worker / shape
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(40):
                draw(shape, random).save(folder / f"{number}.png")
