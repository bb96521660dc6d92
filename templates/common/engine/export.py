"""Exports a trained model, and checks what was written against it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.exits import UserError

TOLERANCE = 1e-4  # between the model's outputs and the exported one's


def export(model: Any, path: Path) -> None:
    """Writes the model's `inference_module` for batches of any size; prints how far it is off.

    Args:
        model: in eval mode, on the CPU.
        path: ends in .pt2 (torch.export) or .onnx.

    Raises:
        UserError: another ending, a package that is missing, or outputs that differ.
    """
    module, example = model.inference_module().eval(), model.example_inputs()
    with torch.no_grad():
        expected = module(example)
        if path.suffix == ".pt2":
            output = _export_pt2(module, example, path)
        elif path.suffix == ".onnx":
            output = _export_onnx(module, example, path)
        else:
            raise UserError(f"--export {path}: name a file that ends in .pt2 or .onnx")
    difference = (output - expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise UserError(f"--export {path}: its output is off by {difference:.2g}: do not use it")
    print(f"{path} written; its output is within {difference:.2g} of the model's")


def _export_pt2(module: nn.Module, example: Tensor, path: Path) -> Tensor:
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    output: Tensor = torch.export.load(path).module()(example)
    return output


def _export_onnx(module: nn.Module, example: Tensor, path: Path) -> Tensor:
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UserError(f"--export {path}: pip install -e '.[export]' ({error})") from error
    del onnxscript  # torch imports it itself, but says less when it is missing
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["inputs"],
        output_names=["outputs"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"inputs": example.numpy()})[0])
