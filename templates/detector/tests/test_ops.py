"""Functions without parameters: what is worked out by hand, and what torchvision does, too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, nms

from engine.images import decode_padded, placement
from ops import (
    decode,
    draw_objects,
    encode,
    flatten,
    initialize_weights,
    letterbox,
    logit,
    make_priors,
    shape_iou,
    suppress,
    unletterbox,
)

SIDE = 64
ANCHORS = torch.tensor(
    [[[8, 8], [8, 16], [16, 8]], [[16, 16], [16, 32], [32, 16]], [[32, 32], [32, 64], [64, 32]]]
).float()


def test_weights_keep_the_scale_of_gradients() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    layer.apply(initialize_weights)
    expected = (2 / (1 + 0.1**2) / (128 * 9)) ** 0.5  # He et al. 2015, equation 15
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_priors_by_hand() -> None:
    priors = make_priors(ANCHORS, SIDE)
    assert priors.shape == (3 * (64 + 16 + 4), 5)
    assert priors[0].tolist() == [0, 0, 8, 8, 8]
    assert priors[1].tolist() == [8, 0, 8, 8, 8]  # a row of cells first
    assert priors[64 + 8].tolist() == [0, 8, 8, 8, 16]  # the second prior, the second row
    assert priors[192 + 16 + 5].tolist() == [16, 16, 16, 16, 32]
    assert priors[-1].tolist() == [32, 32, 32, 64, 32]


def test_maps_are_flattened_in_the_order_of_the_priors() -> None:
    maps = [torch.zeros(1, 3 * 7, side, side) for side in (8, 4, 2)]
    maps[1][0, 1 * 7 + 4, 2, 3] = 1.0  # the second prior's objectness, third row, fourth column
    (place,) = flatten(maps)[0, :, 4].nonzero()[0].tolist()
    assert make_priors(ANCHORS, SIDE)[place].tolist() == [48, 32, 16, 16, 32]


def test_zeros_stand_for_the_prior_in_the_middle_of_its_cell() -> None:
    prior = torch.tensor([48.0, 32, 16, 20, 10])
    assert decode(torch.zeros(4), prior).tolist() == [46, 35, 66, 45]
    third = torch.tensor([logit(0.75), logit(0.25), 0.0, np.log(2)], dtype=torch.float32)
    expected = torch.tensor([54.0, 22, 74, 42])  # half a cell right and up, twice as high
    torch.testing.assert_close(decode(third, prior), expected)


def test_what_is_encoded_is_decoded_again() -> None:
    torch.manual_seed(0)
    priors = make_priors(ANCHORS, SIDE)
    offset = torch.rand(len(priors), 2) * 1.98 - 0.49  # in cells: up to the middle of the next one
    center = priors[:, :2] + offset * priors[:, 2:3]
    boxes = torch.cat([center, priors[:, 3:] * torch.empty(len(priors), 2).uniform_(0.1, 8)], 1)
    boxes = box_convert(boxes, "cxcywh", "xyxy")
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, atol=1e-4, rtol=0)


def test_no_number_overflows() -> None:
    prior = torch.tensor([0.0, 0, 8, 8, 8])
    for value in (1e4, -1e4):
        numbers = torch.full((4,), value, requires_grad=True)
        box = decode(numbers, prior)
        box.sum().backward()
        assert box.isfinite().all()
        assert numbers.grad is not None
        assert numbers.grad.isfinite().all()


def test_iou_of_shapes_is_that_of_boxes_in_one_corner() -> None:
    sizes = torch.rand(2, 5, 2) * 20 + 1
    corner = torch.zeros(10, 2)
    boxes = torch.cat([corner, sizes.view(-1, 2)], dim=1)
    priors = torch.cat([torch.zeros(9, 2), ANCHORS.view(-1, 2)], dim=1)
    ours = shape_iou(sizes, ANCHORS.view(-1, 2))
    torch.testing.assert_close(ours.view(10, 9), box_iou(boxes, priors))


def test_suppression_by_hand() -> None:
    """Two boxes of a class that overlap, one of another class there, one elsewhere, one faint."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50], [20, 0, 30, 10]])
    scores = torch.tensor([[0.8, 0.1], [0.9, 0.6], [0.7, 0.0], [0.2, 0.3]])
    batch = torch.stack([boxes, boxes + 5]), torch.stack([scores, torch.zeros(4, 2)])
    found, empty = suppress(*batch, least=0.25, overlap=0.5)
    assert found[0].tolist() == boxes[[1, 2, 1, 3]].tolist()
    torch.testing.assert_close(found[1], torch.tensor([0.9, 0.7, 0.6, 0.3]))
    assert found[2].tolist() == [0, 0, 1, 1]
    assert [len(each) for each in empty] == [0, 0, 0]
    assert len(suppress(*batch, least=0.25, overlap=0.5, most=2)[0][0]) == 2
    assert len(suppress(*batch, least=0.05, overlap=0.9)[0][0]) == 7  # now both of a pair stay


def test_suppression_in_a_batch_is_torchvisions_image_by_image() -> None:
    torch.manual_seed(0)
    center, size = torch.rand(3, 40, 2) * 60, torch.rand(3, 40, 2) * 30 + 1
    boxes = torch.cat([center - size / 2, center + size / 2], dim=-1)
    scores = torch.rand(3, 40, 4)
    for number, (found, best, labels) in enumerate(suppress(boxes, scores, 0.3, 0.4, most=160)):
        assert (best.diff() <= 0).all()
        for label in range(4):
            own = scores[number, :, label]
            seen = own > 0.3
            kept = nms(boxes[number][seen], own[seen], 0.4)
            assert torch.equal(found[labels == label], boxes[number][seen][kept])
            assert torch.equal(best[labels == label], own[seen][kept])


@pytest.mark.parametrize("size", [(64, 64), (40, 100), (300, 30), (7, 1), (33, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_letterbox_is_what_the_decoder_does(
    tmp_path: Path, size: tuple[int, int], channels: int
) -> None:
    width, height = size
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    path = save(Image.fromarray(ramp).convert("L" if channels == 1 else "RGB"), tmp_path / "a.png")
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image).reshape(height, width, channels))
    ours = letterbox(pixels.permute(2, 0, 1)[None], SIDE, placement(width, height, SIDE))
    expected = torch.from_numpy(decode_padded(str(path), channels, SIDE))
    assert ours.dtype == torch.uint8
    assert ours.shape == (1, channels, SIDE, SIDE)
    assert (ours[0].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("width", "height"), [(128, 64), (30, 90), (64, 64)])
def test_boxes_come_back_from_the_letterbox(width: int, height: int) -> None:
    images = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    images[..., height // 4 : height // 2, width // 2 : width] = 255
    place = placement(width, height, SIDE)
    square = letterbox(images, SIDE, place)[0, 0]
    rows, columns = ((square == 255).any(dim=axis).nonzero() for axis in (1, 0))
    ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    box = unletterbox(torch.stack(ends).float(), width, height, place)
    expected = torch.tensor([width // 2, height // 4, width, height // 2]).float()
    torch.testing.assert_close(box, expected, atol=1.5 * max(width, height) / SIDE, rtol=0)
    outside = unletterbox(torch.tensor([[-5.0, -5, 99, 99]]), width, height, place)
    assert outside.tolist() == [[0, 0, width, height]]


def draw(image: Tensor, box: list[float]) -> Tensor:
    return draw_objects(image, torch.tensor([box]), ["word"], [(255, 0, 0)])


def test_drawn_where_the_box_is() -> None:
    image = torch.full((1, 100, 50), 255, dtype=torch.uint8)
    drawn = draw(image, [10, 20, 40, 90])
    assert drawn.shape == (3, 300, 150)
    is_changed = (drawn != 255).any(dim=0)
    assert is_changed[60, 60]
    assert is_changed[270, 90]
    assert not is_changed[:58].any()
    assert not is_changed[150:260, 50:100].any()
    empty = draw_objects(image, torch.zeros(0, 4), [], [])
    assert torch.equal(empty, torch.full_like(empty, 255))
