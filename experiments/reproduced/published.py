"""What others published, and where a part of ours has the same."""

from experiments.reproduced.claims import Source
from experiments.reproduced.published_images import IMAGES
from experiments.reproduced.published_vaes import VAES

SOURCES: tuple[Source, ...] = VAES + IMAGES
