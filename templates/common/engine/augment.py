"""Random changes to a whole batch at once, each image by parameters of its own.

The definitions are those of torchvision's transforms v2; the tests hold each against them, image by
image.
"""

import torch
from torch import Tensor

LEAST_SEEN = 0.3  # share of a box that is left of it where it is cut, or it is none


def crop_padded(images: Tensor, padding: int, top: Tensor, left: Tensor, fill: int = 0) -> Tensor:
    """Pads images, with black or another value, and crops each to its old size again.

    Args:
        images: (N, C, H, W).
        padding: pixels added on each side.
        top: first row of the crop in the padded image, from 0 to 2 * padding, (N,).
        left: first column, (N,).
        fill: value of the padding.
    """
    count, channels, height, width = images.shape
    padded_shape = (count, channels, height + 2 * padding, width + 2 * padding)
    padded = images.new_full(padded_shape, fill)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    # A row of a crop is a run of pixels in the padded images: it is copied as a whole.
    planes = torch.arange(count * channels, device=images.device).view(count, channels, 1)
    rows = torch.arange(height, device=images.device) + top[:, None, None]
    starts = (planes * padded_shape[2] + rows) * padded_shape[3] + left[:, None, None]
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    return runs.index_select(0, starts.view(-1)).view_as(images)


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirrors those images, (N, C, H, W), that are named in `which`, (N,), of type bool."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def resized_crop(images: Tensor, boxes: Tensor, size: int, fill: int = 0) -> Tensor:
    """Resizes a box of each image, bilinear with antialiasing.

    Args:
        images: uint8, (N, C, H, W).
        boxes: top, left, height and width in whole pixels, (N, 4). They may reach out of the image
            by up to its own height and width.
        size: side of the result, in pixels.
        fill: brightness around the image.

    Returns:
        uint8, (N, C, size, size).
    """
    _, _, height, width = images.shape
    top, left, rows, columns = boxes.float().unbind(1)
    vertical = _resizing(top, rows, height, size)  # (N, size, H)
    horizontal = _resizing(left, columns, width, size)  # (N, size, W)
    # Around the image, what is less its brightness is 0, and need not be there to be added up.
    floats = torch.einsum("nyh,nchw,nxw->ncyx", vertical, images.float() - fill, horizontal)
    return floats.add_(fill).round_().clamp_(0, 255).byte()


def crop_nearest(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resizes a box of each mask; each pixel takes the number of the nearest one there.

    Args:
        masks: (N, C, H, W).
        boxes: top, left, height and width in pixels, (N, 4), as `resized_crop` takes them.
        size: side of the result, in pixels.
    """
    shares = (torch.arange(size, device=masks.device) + 0.5) / size
    top, left, height, width = boxes[:, :, None].unbind(1)  # each (N, 1)
    rows, columns = (top + shares * height).long(), (left + shares * width).long()  # (N, size)
    samples = torch.arange(len(masks), device=masks.device)[:, None, None]
    cut = masks[samples, :, rows[:, :, None], columns[:, None, :]]  # (N, size, size, C)
    return cut.permute(0, 3, 1, 2).contiguous()


def _resizing(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """Returns the weights (N, size, full) by which pixels of a line make those of the result."""
    device = start.device
    scale = (length / size)[:, None, None]
    reach = scale.clamp(min=1)  # of the triangle: wider than a pixel where the image shrinks
    centers = (torch.arange(size, device=device)[None, :, None] + 0.5) * scale
    # As many more to either side, where there is no image, but a share of the weight.
    pixels = torch.arange(-full, 2 * full, device=device)[None, None, :] - start[:, None, None]
    inside = (pixels >= 0) & (pixels < length[:, None, None])
    weights = (1 - ((pixels + 0.5 - centers) / reach).abs()).clamp(min=0) * inside
    return (weights / weights.sum(2, keepdim=True))[..., full : 2 * full]


def draw_zooms(draws: Tensor, side: int, most: float) -> Tensor:
    """Returns squares, (N, 4), for `resized_crop`, which enlarge or shrink by a factor.

    Where they are smaller than the image they lie in it, where they are larger it lies in them.

    Args:
        draws: in [0, 1), (N, 3).
        side: of the images, which are squares.
        most: largest factor, in [1, 2]; the smallest is its inverse.
    """
    length = (side * most ** (2 * draws[:, 0] - 1)).round()  # even in its logarithm
    top, left = ((draws[:, 1:] * (side - length)[:, None]).round()).unbind(1)
    return torch.stack([top, left, length, length], dim=1)


def draw_boxes(draws: Tensor, side: int, smallest: float) -> Tensor:
    """Returns boxes, (N, 4), for `resized_crop`: shares of the image's area from `smallest` to 1.

    The ratio of the sides is from 3/4 to 4/3, as in Szegedy et al. 2015, section 6; a box that
    would be larger than the image is cut to it.

    Args:
        draws: in [0, 1), (N, 4).
        side: of the images, which are squares.
        smallest: share of the area, in (0, 1].
    """
    area = side**2 * (smallest + draws[:, 0] * (1 - smallest))
    ratio = (3 / 4) * (16 / 9) ** draws[:, 1]  # even in its logarithm
    columns = (area * ratio).sqrt().round().clamp(1, side)
    rows = (area / ratio).sqrt().round().clamp(1, side)
    top = (draws[:, 2] * (side - rows + 1)).floor()
    left = (draws[:, 3] * (side - columns + 1)).floor()
    return torch.stack([top, left, rows, columns], dim=1)


def adjust_color(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Changes brightness, then contrast, then saturation; a factor of 1 changes nothing.

    Args:
        images: uint8, (N, C, H, W), in color or grey.
        brightness: factors, (N,).
        contrast: factors, (N,).
        saturation: factors, (N,); without effect on grey images.
    """
    floats = images.float()
    floats = _round(floats * brightness[:, None, None, None])
    mean = _grey(floats).floor().mean((1, 2, 3), keepdim=True)
    floats = _blend(floats, mean, contrast)
    if images.shape[1] == 3:
        floats = _blend(floats, _grey(floats).floor(), saturation)
    return floats.byte()


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    share = share[:, None, None, None]
    return _round((images * share).add_(other * (1 - share)))


def _round(images: Tensor) -> Tensor:
    return images.clamp_(0, 255).floor_()  # as torchvision does, by the cast to uint8


def _grey(images: Tensor) -> Tensor:
    """Returns the luma, (N, 1, H, W), by ITU-R BT.601 as torchvision weighs it."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    luma: Tensor = (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return luma


def copy_paste(images: Tensor, masks: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Pastes the objects of other images onto the first one, each over what is there.

    After Ghiasi et al. 2021, section 3, who paste some of the objects of one other image, rescaled.

    Args:
        images: (N, M, C, H, W), each with M - 1 others.
        masks: numbers of classes, of which 0 is no object, (N, M, 1, H, W).
        ignored: the number of a pixel of no class, which is not pasted either.

    Returns:
        Images (N, C, H, W), and masks (N, 1, H, W).
    """
    (image, *others), (mask, *theirs) = images.unbind(1), masks.unbind(1)
    for other, numbers in zip(others, theirs, strict=True):
        is_object = (numbers != 0) & (numbers != ignored)
        image, mask = other.where(is_object, image), numbers.where(is_object, mask)
    return image, mask


def mosaic(images: Tensor, centers: Tensor) -> Tensor:
    """Lays four images together, corner to corner (Bochkovskiy et al. 2020, section 3.3).

    Of the first one the lower right corner is at the center, of the second the lower left, of the
    third the upper right, of the fourth the upper left. What then reaches out is cut off.

    Args:
        images: (N, 4, C, S, S).
        centers: column and row in whole pixels, (N, 2).

    Returns:
        (N, C, S, S).
    """
    side = images.shape[-1]
    places = torch.arange(side, device=images.device)
    columns, rows = (places - center[:, None] for center in centers.unbind(1))  # each (N, S)
    which = 2 * (rows >= 0)[:, :, None] + (columns >= 0)[:, None, :]  # (N, S, S)
    samples = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = rows % side, columns % side
    laid = images[samples, which, :, rows[:, :, None], columns[:, None, :]]  # (N, S, S, C)
    return laid.permute(0, 3, 1, 2).contiguous()


def mosaic_boxes(boxes: Tensor, centers: Tensor, side: int) -> Tensor:
    """Moves the boxes of four images as `mosaic` does the images, and cuts them likewise.

    Args:
        boxes: left, top, right and bottom in pixels, (N, 4, M, 4).
        centers: column and row, (N, 2).
        side: of the images.

    Returns:
        (N, 4, M, 4).
    """
    later = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=boxes.device)  # than the center
    centers = centers[:, None]  # (N, 1, 2)
    shift = centers - side * (1 - later)  # (N, 4, 2)
    first, last = later * centers, side - (1 - later) * (side - centers)
    moved = boxes + shift.repeat(1, 1, 2)[:, :, None]
    limits = [each.repeat(1, 1, 2)[:, :, None] for each in (first, last)]
    return moved.maximum(limits[0]).minimum(limits[1])


def crop_boxes(boxes: Tensor, crops: Tensor, size: int) -> Tensor:
    """Moves boxes as `resized_crop` does what is in them, and cuts them to the result.

    Args:
        boxes: left, top, right and bottom in pixels, (N, M, 4).
        crops: top, left, height and width in pixels, (N, 4).
        size: side of the result, in pixels.
    """
    corner, length = crops[:, None, :2].flip(-1), crops[:, None, 2:].flip(-1)
    moved = (boxes - corner.repeat(1, 1, 2)) * (size / length).repeat(1, 1, 2)
    return moved.clamp(0, size)


def flip_boxes(boxes: Tensor, which: Tensor, side: int) -> Tensor:
    """Mirrors the boxes, (N, M, 4), of those images that are named in `which`, (N,).

    Args:
        boxes: left, top, right and bottom in pixels.
        which: of type bool.
        side: of the images, in pixels.
    """
    left, top, right, bottom = boxes.unbind(-1)
    mirrored = torch.stack([side - right, top, side - left, bottom], dim=-1)
    return torch.where(which[:, None, None], mirrored, boxes)


def areas(boxes: Tensor) -> Tensor:
    """Returns the area of each box, (..., 4), in square pixels, (...)."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def drop_cut(boxes: Tensor, labels: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Makes padding, zeros and -1, of those boxes of which too little is left.

    Args:
        boxes: as they are cut, (N, M, 4).
        labels: theirs, (N, M), -1 where there is none.
        size: their areas, were they not cut, (N, M).

    Returns:
        Boxes and labels.
    """
    is_there = (labels >= 0) & (areas(boxes) > LEAST_SEEN * size)
    return boxes * is_there[..., None], labels.where(is_there, -1)
