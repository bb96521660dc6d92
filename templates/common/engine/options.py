"""The flags every training takes; the model's own stand in its file, the data's in data.py.

Nothing here imports torch, so `--help` answers at once.
"""

import __future__

import argparse
import ast
import sys
import time
from pathlib import Path
from typing import Any

from engine.exits import UserError
from engine.parser import PROJECT, number

PROFILED_STEPS = 10  # of --debug profile, the first four to warm up

_SWITCH: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": False}


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `train.py` takes for every model."""
    _add_run_arguments(parser.add_argument_group("the run and its folder"))
    _add_data_arguments(parser.add_argument_group("data"))
    _add_optimization_arguments(parser.add_argument_group("optimization"))
    _add_device_arguments(parser.add_argument_group("device and speed"))
    _add_record_arguments(parser.add_argument_group("record and checkpoints"))


def _add_run_arguments(group: Any) -> None:
    group.add_argument("--run_dir", help="folder of the run (default: runs/<model>-<time>)")
    group.add_argument(
        "--resume",
        **_SWITCH,
        help="continue the run in --run_dir at its newest good checkpoint; start it if none",
    )
    group.add_argument(
        "--allow_changes",
        **_SWITCH,
        help="resume even where changed flags or data keep the run from going on exactly",
    )
    group.add_argument(
        "--path_to_checkpoint", help="start from these weights, at epoch 0 (fine-tuning)"
    )
    group.add_argument(
        "--epochs", type=number(int, 1), default=10, help="passes over the training set"
    )
    group.add_argument(
        "--max_steps", type=number(int, 0), default=0, help="stop after so many steps; 0: no limit"
    )
    group.add_argument(
        "--seed", type=number(int, 0), default=0, help="of every random draw of the run"
    )
    group.add_argument(
        "--debug",
        choices=["one_batch", "overfit", "profile"],
        help="one batch through everything; one batch, learned by heart; or where the time goes",
    )


def _add_data_arguments(group: Any) -> None:
    group.add_argument("--path_to_data", default="data", help="folder that holds train/ and test/")
    group.add_argument("--img_size", type=number(int, 1), default=32, help="side, in pixels")
    group.add_argument("--batch_size", type=number(int, 1), default=64, help="samples per batch")
    group.add_argument(
        "--num_workers",
        type=number(int, 0),
        help="processes that load data (default: one per spare CPU, at most 4)",
    )
    group.add_argument(
        "--prefetch",
        type=number(int, 0),
        default=2,
        help="batches a background thread keeps ready; 0: no thread",
    )


def _add_optimization_arguments(group: Any) -> None:
    group.add_argument(
        "--lr", type=number(float, 0), default=1e-3, help="learning rate after warm-up"
    )
    group.add_argument(
        "--lr_schedule",
        choices=["constant", "cosine", "linear"],
        default="cosine",
        help="how the learning rate goes from --lr towards 0 over the run",
    )
    group.add_argument(
        "--warmup",
        type=number(int, 0),
        default=0,
        help="steps over which the learning rate rises to --lr",
    )
    group.add_argument(
        "--accumulate",
        type=number(int, 1),
        default=1,
        help="batches whose gradients make one step (virtual batch)",
    )
    group.add_argument(
        "--clip_grad",
        type=number(float, 0),
        default=0.0,
        help="largest norm of each optimizer's gradient; 0: off",
    )
    group.add_argument(
        "--max_bad_steps",
        type=number(int, 1),
        default=10,
        help="steps in a row with a loss or gradient that is not finite, which end the run",
    )
    group.add_argument(
        "--ema",
        type=number(float, 0, 1),
        default=0.0,
        help="decay of the weights' moving average, used for tests, such as 0.999; 0: off",
    )


def _add_device_arguments(group: Any) -> None:
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")
    group.add_argument(
        "--parallel",
        choices=["super", "networks", "none"],
        default="super",
        help="several GPUs: nn.DataParallel around the whole model, losses included, or around "
        "each network, or only the first GPU",
    )
    group.add_argument(
        "--sync_batch_norm",
        **_SWITCH,
        help="several processes on GPUs: batch normalization sees the batches of all of them",
    )
    group.add_argument(
        "--amp",
        **_SWITCH,
        help="mixed precision: bfloat16 where the device has it, else float16 with loss scaling",
    )
    group.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        help="TensorFloat-32 on GPUs that have it (default: in convolutions alone)",
    )
    group.add_argument(
        "--channels_last",
        **_SWITCH,
        help="keep the channels of a pixel side by side; often faster with --amp on GPUs",
    )
    group.add_argument(
        "--fused",
        action=argparse.BooleanOptionalAction,
        help="an optimizer's step in one kernel (default: on GPUs of CUDA)",
    )
    group.add_argument(
        "--compile",
        **_SWITCH,
        help="compile the model with torch.compile",
    )
    group.add_argument(
        "--deterministic",
        **_SWITCH,
        help="refuse algorithms whose result may differ from run to run (slower on GPUs)",
    )


def _add_record_arguments(group: Any) -> None:
    group.add_argument(
        "--log_every", type=number(int, 1), default=50, help="steps between two scalars"
    )
    group.add_argument(
        "--picture_every", type=number(int, 0), default=200, help="steps between pictures; 0: none"
    )
    group.add_argument(
        "--test_every", type=number(int, 1), default=1, help="epochs between two test passes"
    )
    group.add_argument(
        "--save_every",
        type=number(int, 0),
        default=500,
        help="steps between checkpoints within an epoch; 0: only at its end",
    )
    group.add_argument(
        "--keep", type=number(int, 1), default=3, help="newest checkpoints to keep beside best.pt"
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the scripts that read a checkpoint."""
    parser.add_argument("--path_to_checkpoint", required=True, help="such as runs/.../best.pt")
    parser.add_argument("--batch_size", type=number(int, 1), default=64, help="samples per batch")
    parser.add_argument("--num_workers", type=number(int, 0), help="processes that load data")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")


def add_image_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the flags of every data set of images."""
    parser.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="1 reads the images as grey, 3 as color",
    )
    parser.add_argument(
        "--flip",
        **_SWITCH,
        help="mirror half of the training images; not for digits or letters",
    )
    parser.add_argument(
        "--cache",
        choices=("auto", "off", "disk", "ram", "device"),
        default="auto",
        help="keep decoded images; auto: on disk, if half of its free space is enough",
    )
    parser.add_argument(
        "--check_data",
        action="store_true",
        help="read every image first, list the bad ones, and train only if there are none",
    )
    parser.add_argument(
        "--skip_bad",
        type=int,
        default=0,
        metavar="N",
        help="replace up to N bad images of a split by their neighbors; 0 stops at the first",
    )


def add_arguments_of(
    filename: str, parser: argparse.ArgumentParser, function: str = "add_arguments"
) -> None:
    """Adds the flags of the project's own file, without importing it, and torch with it.

    The body of the file's `add_arguments(parser)`, or of another function that takes a parser, is
    lifted from the source and run alone, so it may use `parser`, `argparse`, builtins and
    `add_image_arguments`, and nothing else of its file.
    """
    path = PROJECT / filename
    namespace: dict[str, Any] = {"argparse": argparse, "add_image_arguments": add_image_arguments}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            node.decorator_list = []
            lifted = ast.Module(body=[node], type_ignores=[])
            flags = __future__.annotations.compiler_flag  # so that annotations stay unread
            exec(compile(lifted, str(path), "exec", flags), namespace)
            namespace[function](parser.add_argument_group(filename.removesuffix(".py")))


def settle(options: argparse.Namespace, model_name: str, workers: int) -> None:
    """Sets what the flags of a training leave open.

    Raises:
        UserError: --resume has no run to continue, or is to go on with a --debug run.
    """
    if options.resume and not options.run_dir:
        raise UserError("--resume continues the run in --run_dir: name it")
    if options.resume and options.debug:
        raise UserError("--debug is a short run of its own: leave --resume out")
    if options.run_dir is None:
        name = f"{model_name}-{options.debug}" if options.debug else model_name
        options.run_dir = f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if options.num_workers is None:
        options.num_workers = workers
    if options.debug:
        _settle_debug(options)


def _settle_debug(options: argparse.Namespace) -> None:
    """Makes the run as short as --debug wants it."""
    if options.debug == "one_batch":
        options.max_steps = options.log_every = options.picture_every = options.save_every = 1
        return
    steps = {"overfit": 300, "profile": PROFILED_STEPS}[options.debug]
    options.max_steps = options.max_steps or steps
    options.log_every = max(1, options.max_steps // 20)
    options.picture_every = options.save_every = 0
    if options.debug == "overfit":
        options.lr_schedule = "constant"
        # With these, no loss falls to zero, however well the batch is known.
        for name in {"label_smoothing", "weight_decay", "dropout"} & vars(options).keys():
            setattr(options, name, 0.0)
    elif options.max_steps < PROFILED_STEPS:
        raise UserError(f"--debug profile takes {PROFILED_STEPS} steps: raise --max_steps")


def save_config(options: argparse.Namespace, path: Path) -> None:
    """Writes the options, one `flag: value` a line, with the command that gave them."""
    lines = [f"{name}: {value}" for name, value in sorted(vars(options).items())]
    path.write_text("\n".join([f"# {' '.join(sys.argv)}", *lines, ""]), encoding="utf-8")
