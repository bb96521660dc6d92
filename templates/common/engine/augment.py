"""Random changes to a whole batch at once, each image by parameters of its own.

The definitions are those of torchvision's transforms v2; the tests hold each against them, image by
image.
"""

import torch
from torch import Tensor


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


def resized_crop(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resizes a box of each image, bilinear with antialiasing.

    Args:
        images: uint8, (N, C, H, W).
        boxes: top, left, height and width in whole pixels, (N, 4).
        size: side of the result, in pixels.

    Returns:
        uint8, (N, C, size, size).
    """
    _, _, height, width = images.shape
    top, left, rows, columns = boxes.float().unbind(1)
    vertical = _resizing(top, rows, height, size)  # (N, size, H)
    horizontal = _resizing(left, columns, width, size)  # (N, size, W)
    floats = torch.einsum("nyh,nchw,nxw->ncyx", vertical, images.float(), horizontal)
    return floats.round_().clamp_(0, 255).byte()


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
    pixels = torch.arange(full, device=device)[None, None, :] - start[:, None, None]
    inside = (pixels >= 0) & (pixels < length[:, None, None])
    weights = (1 - ((pixels + 0.5 - centers) / reach).abs()).clamp(min=0) * inside
    return weights / weights.sum(2, keepdim=True)


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
