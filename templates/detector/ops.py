"""Functions without parameters of their own: boxes, priors, and what becomes of images.

Boxes are (left, top, right, bottom) in pixels of the square image that the network sees, unless a
function says otherwise. A prediction is a row of 5 + C numbers: four of the box, the logit of
whether there is an object, and a logit for each class. All predictions of an image are in one list,
P long: scale by scale, of each the three priors in turn, of each the cells row by row.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms
from torchvision.utils import draw_bounding_boxes

Place = tuple[int, int, int, int]  # width and height of an image, and the columns and rows before
Color = tuple[int, int, int]

READABLE = 256  # pixels of a side, at least, of what is shown
STRIDES = (8, 16, 32)  # pixels to a cell's side, of each scale (Redmon and Farhadi 2018, 2.3)
PRIORS = 3  # at each cell of each scale
GREY = 128  # around an image that is no square, as `engine.images.decode_padded` has it
# A center is where the sigmoid says, stretched about the middle of its cell, so that it can lie on
# the cell's border, and in a neighbor up to its middle (Bochkovskiy et al. 2020, section 3.4).
STRETCH = 2.0
LARGEST = 8.0  # logarithm of a size over its prior's; beyond, exp would overflow


def initialize_weights(module: nn.Module) -> None:
    """Draws a convolution's weights by He et al. 2015, section 2.2; biases are 0.

    Use it as `network.apply(initialize_weights)`.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def make_priors(anchors: Tensor, side: int) -> Tensor:
    """Returns where each prediction starts from: (P, 5).

    Args:
        anchors: width and height of the priors of each scale, in pixels, (3, 3, 2).
        side: of the image, a multiple of 32.

    Returns:
        Left, top and side of the prediction's cell, and width and height of its prior, in pixels.
    """
    rows = []
    for stride, sizes in zip(STRIDES, anchors, strict=True):
        count = side // stride
        places = torch.arange(count, device=anchors.device) * stride
        top, left = torch.meshgrid(places, places, indexing="ij")
        cells = torch.stack([left, top, torch.full_like(left, stride)], dim=-1).to(anchors.dtype)
        shape = PRIORS, count, count
        both = cells.expand(*shape, 3), sizes[:, None, None].expand(*shape, 2)
        rows.append(torch.cat(both, dim=-1).flatten(0, 2))
    return torch.cat(rows)


def flatten(maps: list[Tensor]) -> Tensor:
    """Puts the network's maps of each scale, (N, 3 * (5 + C), h, w), in one list, (N, P, 5 + C)."""
    rows = [each.unflatten(1, (PRIORS, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3) for each in maps]
    return torch.cat(rows, dim=1)


def decode(predicted: Tensor, priors: Tensor) -> Tensor:
    """Returns the boxes that four numbers each stand for (Redmon and Farhadi 2018, section 2.1).

    Args:
        predicted: (..., 4).
        priors: theirs, (..., 5).
    """
    corner, side, sizes = priors.split((2, 1, 2), dim=-1)
    center = corner + side * (STRETCH * (predicted[..., :2].sigmoid() - 0.5) + 0.5)
    half = sizes * predicted[..., 2:].clamp(-LARGEST, LARGEST).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Returns the four numbers that stand for boxes: what `decode` undoes.

    Args:
        boxes: (..., 4), whose centers are less than a cell's side from the middle of the cell.
        priors: theirs, (..., 5).
    """
    corner, side, sizes = priors.split((2, 1, 2), dim=-1)
    first, last = boxes.split(2, dim=-1)
    offset = ((first + last) / 2 - corner) / side  # in cells
    return torch.cat([((offset - 0.5) / STRETCH + 0.5).logit(), ((last - first) / sizes).log()], -1)


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """Returns the IoU of boxes with anchors that have the same center.

    Args:
        sizes: width and height, (..., 2).
        anchors: likewise, (A, 2).

    Returns:
        In [0, 1], (..., A).
    """
    common = torch.minimum(sizes[..., None, :], anchors).prod(dim=-1)
    return common / (sizes.prod(dim=-1)[..., None] + anchors.prod(dim=-1) - common)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Returns the IoU of each box, (K, 4), with the one at its place, (K, 4): (K,)."""
    first, last = boxes.maximum(others)[:, :2], boxes.minimum(others)[:, 2:]
    common = (last - first).clamp(min=0).prod(dim=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(dim=1) for each in (boxes, others)]
    return common / (areas[0] + areas[1] - common)


def suppress(
    boxes: Tensor, scores: Tensor, least: float, overlap: float, most: int = 100
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Leaves of each image the boxes that no better one of the same class overlaps.

    Args:
        boxes: (N, P, 4).
        scores: of each class, in [0, 1], (N, P, C).
        least: score of a box that counts.
        overlap: IoU above which of two boxes the worse one goes.
        most: boxes left of an image.

    Returns:
        Of each image: boxes (K, 4), scores (K,) and labels (K,), best first.
    """
    count, _, classes = scores.shape
    best, places = scores.flatten(1).topk(min(10 * most, scores[0].numel()))  # (N, K)
    images = torch.arange(count, device=boxes.device)[:, None].expand_as(places)
    is_seen = best > least
    best, places, images = best[is_seen], places[is_seen], images[is_seen]
    labels = places % classes
    found = boxes[images, places // classes]
    kept = batched_nms(found, best, images * classes + labels, overlap)  # best first
    results = []
    for image in range(count):
        own = kept[images[kept] == image][:most]
        results.append((found[own], best[own], labels[own]))
    return results


def letterbox(images: Tensor, side: int, place: Place) -> Tensor:
    """Fits images, (N, C, H, W), into squares, (N, C, side, side), with grey beside them.

    It is to tensors what `engine.images.decode_padded` is to files.

    Args:
        images: uint8.
        side: of the squares.
        place: of an image in its square, by `engine.images.placement`.
    """
    columns, rows, left, top = place
    resized = functional.interpolate(
        images.float(), (rows, columns), mode="bilinear", antialias=True, align_corners=False
    )
    margins = left, side - left - columns, top, side - top - rows
    return functional.pad(resized.round(), margins, value=GREY).to(images.dtype)


def unletterbox(boxes: Tensor, width: int, height: int, place: Place) -> Tensor:
    """Moves boxes, (..., 4), from the square back into the image that was fitted into it.

    They are cut to the image.

    Args:
        boxes: in pixels of the square.
        width: of the image, in pixels.
        height: likewise.
        place: of the image in the square.
    """
    columns, rows, left, top = place
    corner = boxes.new_tensor([left, top, left, top])
    scale = boxes.new_tensor([width / columns, height / rows]).repeat(2)
    size = boxes.new_tensor([width, height]).repeat(2)
    return ((boxes - corner) * scale).clamp(min=0).minimum(size)


def draw_objects(image: Tensor, boxes: Tensor, words: list[str], colors: list[Color]) -> Tensor:
    """Returns an image with its objects.

    Small images are enlarged, so that words can be read.

    Args:
        image: uint8 (1 or 3, H, W).
        boxes: (K, 4).
        words: beside the boxes, K.
        colors: of boxes and words, red, green and blue in [0, 255], K.

    Returns:
        uint8 (3, H, W), or larger by a whole factor, on the CPU.
    """
    factor = math.ceil(READABLE / max(image.shape[1:]))
    large = image.expand(3, -1, -1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    large = large.cpu().contiguous()
    if not len(boxes):  # of which torchvision would warn
        return large
    drawn: Tensor = draw_bounding_boxes(large, boxes.cpu() * factor, words, colors, width=2)
    return drawn


def logit(share: float) -> float:
    """Returns the number whose sigmoid is the share, in (0, 1)."""
    return math.log(share / (1 - share))
