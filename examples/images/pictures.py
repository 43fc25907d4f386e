"""A folder of images, as its worker loads it: one folder of images a class."""

from torchvision import datasets, transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize((32, 32)),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


def load(folder: str) -> datasets.ImageFolder:
    """Return the images below FOLDER/CLASS/, each with the number of its class."""
    return datasets.ImageFolder(folder, TRANSFORM)
