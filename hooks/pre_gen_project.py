"""Refuse names that could not work, while nothing has been written.

cookiecutter fills in this script and runs it inside the new folder, which is still empty. It only
reads the answers: the first refusal leaves no file behind, nor touches one that was there.
"""

# ruff: noqa: SIM905 (rows of words read better than a column of quoted ones)

from __future__ import annotations

import builtins
import json
import keyword
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Answers are data, never code: `tojson` writes each quote of theirs as an escape.
PAIRS = json.loads(r'''{{ cookiecutter.items() | list | tojson }}''')  # fmt: skip
ANSWERS: dict[str, Any] = dict(PAIRS)

# The lists between the two marks are written by `python tests/refresh.py`.
# <refresh>
PACKAGES = """
ipykernel matplotlib mypy nbclient numpy onnx onnxruntime onnxscript pillow plotly pre-commit
prefetch-generator pycocotools pytest pytest-timeout ruff scikit-learn setuptools tensorboard
tensorboardx torch torchinfo torchmetrics torchvision tqdm types-tqdm
""".split()
MODULES = """
PIL annotations conftest data engine guide layers losses matplotlib networks numpy onnxruntime
onnxscript ops plotly predict prefetch_generator prepare_data pycocotools pytest report sklearn
small tensorboard tensorboardX test test_annotations test_augment test_augmentation test_cache
test_checkpoint test_cuda test_data test_debugging test_distributed test_divergence test_engine
test_environment test_exits test_files test_guide test_images test_known_data test_layers
test_loading test_losses test_memory test_model test_networks test_notebook test_ops test_parallel
test_predict test_prefetch test_prepare_data test_record test_report test_resume test_scripts
test_speed test_train test_waits tests torch torchmetrics torchvision tqdm train
""".split()
CLASSES = {
    "common": """
Any BEST BackgroundBatches BadImageError Canvas CanvasObject CheckedCache Checkpoints Clock Curve
DeferredStepGuard Definition DeviceCache DiskCache DivergenceError DrawnBySample EfficiencyMeter
Facts FailedError FakeArrays FakeImagenette FileList Finding FullDisk HTMLParser Half History Image
ImageStore LossWindow Malicious MaskStore MemoryCache MetricCollection MovingAverage Namespace
NoCache NotForWorkers Numbers OPTIONS Page Pairs Parse Parser Path Picture Point PreemptedError
Project READABLE Record Replicas ReplicatedNetwork ResumableBatchSampler Rows Rule RunLock Scene
SeededDataset Source SplitNetwork StepGuard StepSchedule StopRequest Tensor TestFileList
TestListing TestReadImage Trainer TrainingLoader TrainingState UserError
""".split(),
    "classifier": """
Adam Any Augmentation CLASSES ClassificationLoss ConvBlock GREEN ImageFolder MeanMetric
MetricCollection Model MulticlassAccuracy MulticlassConfusionMatrix Normalize Optimizer Parse RED
ResnetBlock Sequence SimpleNetwork Tensor TestAugmentation TestBadFiles TestBuildDatasets
TestCheckData TestTrainingLoader TorchvisionNetwork UserError
""".split(),
    "gan": """
Adam Any CONFIDENT ClassCount Discriminator DiscriminatorLoss DownBlock FeatureNetwork
FrechetInceptionDistance Generator GeneratorLoss GradientPenalty ImageFolder InceptionNetwork
KernelDistance LOSSES Linear MeanMetric Metric MetricCollection Model NDArray NETWORKS Optimizer
Parse Path SHOWN SIZES SelfAttention Sequence Tensor TrainingState UpBlock UserError
""".split(),
    "translator": """
Adam AdaptiveInstanceNorm Any Augmentation BadImageError ConvBlock DiscriminatorLoss
FeatureMatchingLoss Generator GeneratorLoss Image MeanSignalNoiseRatio Metric MetricCollection
Model MultiscaleDiscriminator NETWORKS OPTIONS Optimizer PairFolder Parse PatchDiscriminator Path
PerceptualLoss PixelLoss ResnetBlock SHOWN STYLES Sequence Slices StructuralSimilarityIndexMeasure
StyleEncoder StyleLoss StyledResnetBlock TILE Tensor TrainingState UpBlock UserError Vgg19 WEIGHTS
""".split(),
    "detector": """
ANCHORS Adam AnnotatedImages Annotations Any Augmentation AveragePrecision BadImageError CLASSES
ConvBlock ConvSet DARKNETS Darknet Decode DetectionLoss Detector Image MeanMetric MetricCollection
Model NOTHING Normalize OPTIONS Optimizer Parse Path Picture PrecisionRecall ResidualBlock SHOWN
STRIDES Sequence TERMS Tensor TorchvisionBackbone UserError WEIGHTS
""".split(),
    "segmenter": """
Adam Any Augmentation BadImageError CLASSES DiceLoss DoubleConv Encoder IGNORED Image MaskFolder
MeanMetric Metric MetricCollection Model MulticlassAccuracy MulticlassConfusionMatrix
MulticlassF1Score MulticlassJaccardIndex Normalize OPTIONS Optimizer Parse Path PixelCrossEntropy
RAMP SHOWN SMALL Sequence TILE Tensor TorchvisionEncoder UNet UpBlock UserError
""".split(),
}
# </refresh>

# Modules that the project's packages import in turn, and files that Python, pip or pytest run by
# their names alone: a model's file in their place would be run instead.
NEIGHBOURS = """
_pytest absl cloudpickle conftest contourpy cuda cycler dateutil distutils filelock flatbuffers
fontTools fsspec functorch google grpc imp iniconfig jinja2 joblib kiwisolver lightning_utilities
markdown markupsafe matplotlib ml_dtypes mpl_toolkits mpmath mypy mypy_extensions narwhals networkx
nvidia onnx onnx_ir onnxruntime onnxscript packaging pathspec pip pkg_resources pluggy psutil py
pygments pylab pyparsing pytest pytest_timeout ruff scipy setup setuptools sitecustomize six
sklearn sympy tensorboard threadpoolctl tomli torchgen torchinfo triton typing_extensions
usercustomize werkzeug yaml
""".split()

# Controls, the lone halves that broken encodings leave, and the separators of lines and paragraphs,
# which are a space to one reader of a file and the end of a line to another.
HIDDEN = ("Cc", "Cs", "Zl", "Zp")

# Windows gives these names to devices, whatever the ending.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def text_problem(text: str) -> str:
    """Says why a free text cannot be used, or nothing."""
    if text != without_controls(text):
        return "it holds a character that cannot be printed"
    return ""


def slug_problem(slug: str) -> str:
    """Says why a folder and package cannot be named so, or nothing."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", slug):
        return (
            "a folder that pip can name holds 1 to 100 letters a to z, digits, dots, dashes and "
            "underscores, and begins and ends with a letter or digit"
        )
    if re.sub(r"[-_.]+", "-", slug).lower() in PACKAGES:
        return "the project installs a package of that name"
    if DEVICES.fullmatch(slug):
        return "Windows keeps that name for a device"
    return ""


def class_problem(name: str) -> str:
    """Says why the model's class cannot be named so, or nothing."""
    if not name.isidentifier() or not name[0].isupper() or "_" in name:
        return "a class is words run together, each with a capital first, of letters and digits"
    if keyword.iskeyword(name) or hasattr(builtins, name):
        return "Python gives that word a meaning of its own"
    if name in CLASSES["common"] or name in CLASSES[ANSWERS["variant"]]:
        return "the project's code uses that name for something else"
    if name in ("I", "O"):
        return "it is too easily read as a digit"
    return spelling_problem(name)


def module_problem(module: str) -> str:
    """Says why the model's file cannot be named so, or nothing."""
    if not module.isidentifier() or keyword.iskeyword(module) or module.startswith("__"):
        return "a Python module is letters, digits and underscores, no digit first, no keyword"
    # Folders on macOS and Windows do not tell capitals from small letters.
    folded = module.casefold()
    if folded in {name.casefold() for name in sys.stdlib_module_names}:
        return "Python's standard library has a module of that name"
    if folded in {name.casefold() for name in MODULES + NEIGHBOURS}:
        return "the project has or imports a module of that name already"
    if DEVICES.fullmatch(module):
        return "Windows keeps that name for a device"
    return spelling_problem(module)


def spelling_problem(name: str) -> str:
    """Says what Python or the formatter would make of a name's letters, or nothing."""
    if unicodedata.normalize("NFKC", name) != name:
        return "Python would read it with other letters"
    # The lines that bear the name must not grow beyond the formatter's limit.
    if sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name) > 40:
        return "it is longer than 40 letters"
    return ""


def without_controls(text: str) -> str:
    """Leaves out what cannot be shown: controls, separators of lines, halves of letters."""
    return "".join(letter for letter in text if letter in "\n\t" or is_shown(letter))


def is_shown(letter: str) -> bool:
    """Says whether a letter is one; of the last two, Unicode says that they never will be."""
    return unicodedata.category(letter) not in HIDDEN and letter not in "\ufffe\uffff"


def suggest_slug(slug: str) -> Iterable[str]:
    """Proposes names for the folder, best first; the last one is always good."""
    plain = "-".join(re.findall(r"[A-Za-z0-9]+", slug))
    return plain[:100].strip("-"), f"{plain[:92]}-project", "my-project"


def suggest_class(name: str) -> Iterable[str]:
    """Proposes names for the class, best first; the last one is always good."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name))
    joined = "".join(word[0].upper() + word[1:] for word in words).lstrip("0123456789")
    joined = joined[:1].upper() + joined[1:]
    return joined[:40], f"{joined[:35]}Model", ANSWERS["_models"][ANSWERS["variant"]]


def suggest_module(module: str) -> Iterable[str]:
    """Proposes names for the file, best first; the last one is always good."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", module).lower())
    joined = "_".join(words).lstrip("0123456789_")
    return joined[:40], f"{joined[:34]}_model", ANSWERS["_models"][ANSWERS["variant"]].lower()


def suggest_text(text: str) -> Iterable[str]:
    """Proposes the text without what cannot be printed."""
    return (without_controls(text),)


Problem = Callable[[str], str]
Suggest = Callable[[str], Iterable[str]]
CHECKS: dict[str, tuple[Problem, Suggest]] = {
    "project_name": (text_problem, suggest_text),
    "project_slug": (slug_problem, suggest_slug),
    "description": (text_problem, suggest_text),
    "author_name": (text_problem, suggest_text),
    "model_name": (class_problem, suggest_class),
    "model_module": (module_problem, suggest_module),
}


def refuse_names(answers: dict[str, str]) -> list[str]:
    """Replaces each bad answer by a good one, and returns one sentence for each."""
    refusals = []
    for key, (problem, suggest) in CHECKS.items():
        answer = answers[key]
        reason = problem(answer)
        if reason:
            answers[key] = next(name for name in suggest(answer) if not problem(name))
            refusals.append(f"{key} cannot be {answer!r}: {reason}; try {answers[key]!r}.")
            # The file was named after the class, so it follows the suggestion.
            if key == "model_name" and answers["model_module"] == answer.lower():
                answers["model_module"] = answers[key].lower()
    return refusals


def refuse_folder(answers: dict[str, str]) -> list[str]:
    """Refuses to write over work that this template did not begin (cookiecutter -f)."""
    ours = Path("train.py").exists() and Path("engine").is_dir()
    if ours or all(path.name.startswith(".") for path in Path().iterdir()):
        return []
    slug = answers["project_slug"]
    answers["project_slug"] = f"{slug[:96]}-new"
    return [f"{slug!r} holds work of another kind, left as it is; try {slug[:96] + '-new'!r}."]


def command(answers: dict[str, str]) -> str:
    """Writes the line that renders these answers without asking again."""
    words = ["cookiecutter", ANSWERS["_template"], "--no-input"]
    for option in ("checkout", "output_dir"):
        if ANSWERS.get(f"_{option}"):
            words += [f"--{option.replace('_', '-')}", ANSWERS[f"_{option}"]]
    # cookiecutter evaluates what stands in double braces in key=value: each is told to stay.
    brace = "{" * 2 + " '{' " + "}" * 2
    words += [f"{key}={text.replace('{', brace)}" for key, text in answers.items()]
    return shlex.join(words)


def main() -> int:
    """Checks every answer and returns the exit status."""
    answers = {key: text for key, text in ANSWERS.items() if not key.startswith("_")}
    refusals = refuse_names(answers) or refuse_folder(answers)
    if refusals:
        print(*refusals, "To render with that:", command(answers), sep="\n", file=sys.stderr)
    return 1 if refusals else 0


if __name__ == "__main__":
    sys.exit(main())
