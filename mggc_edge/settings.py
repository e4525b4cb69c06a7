"""Every setting that has no flag of its own: name, default, unit, meaning and source, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mggc_edge.errors import SettingError
from mggc_edge.method_settings import METHOD_SETTINGS
from mggc_edge.precision_settings import PRECISION_SETTINGS
from mggc_edge.setting import Setting, Value, flatten, read_toml

__all__ = ["SETTINGS", "Setting", "Settings", "Value"]

_TABLE: tuple[Setting, ...] = (
    Setting("bench.margin", 0.05, "fraction", "smallest difference of latencies that matters", low=0.001, high=1),
    Setting(
        "bench.energy_seconds",
        10.0,
        "seconds",
        "a Jetson's power is taken under each model alone; 0: not at all",
        low=0,
        high=600,
    ),
    Setting("bench.idle_seconds", 5.0, "seconds", "and before it, while nothing runs", low=0.5, high=600),
    Setting(
        "bench.max_seconds",
        300.0,
        "seconds",
        "a longer measurement ends early, with fewer pairs",
        low=1,
        high=86400,
    ),
    Setting("bench.pairs", 40, "pairs", "pairs of samples, where --pairs is not given", low=1, high=10_000),
    Setting("bench.processes", 10, "processes", "fresh processes a model, which share the pairs", low=1, high=1000),
    Setting("bench.ssh_config", "", "", "file of ssh's configuration, instead of the user's own"),
    Setting("bench.warmup_seconds", 1.0, "seconds", "an untimed warm-up lasts at least so long", low=0.001, high=600),
    Setting("built_in.finetune_epochs", 30.0, "epochs", "finetuning on built-in pictures", low=0.001),
    Setting("built_in.pictures", 240, "pictures", "built-in pictures, where there are no others", low=10, high=100_000),
    Setting("built_in.prune_epochs", 10.0, "epochs", "pruning on built-in pictures", low=0.001),
    Setting("checkpoint.max_bytes", 4 * 2**30, "bytes", "a larger checkpoint file is refused", low=1),
    Setting(
        "compress.targets",
        "auto",
        "",
        "what compress exports for beside portable: auto (this machine's), none, or targets with commas",
    ),
    Setting("data.cache_bytes", 2**29, "bytes", "decoded pictures kept in memory, of each set", low=0),
    Setting("data.held_out", 0.1, "fraction", "pictures held out, to choose the best checkpoint by", low=0, high=0.4),
    Setting("data.max_held_out", 40, "pictures", "most pictures that are held out", low=1),
    Setting(
        "data.view_scale", 286 / 256, "", "pictures are read this much larger, and cropped", "CycleGAN", low=1, high=4
    ),
    Setting("demo.batch_size", 4, "pictures", "pictures a step of the demo, in every stage", low=1, high=1024),
    Setting("demo.budget", 0.15, "fraction of MACs", "what the demo's plan keeps", low=0.01, high=1),
    Setting("demo.distill_content", 1.0, "", "weight of the feature distances in the demo", low=0),
    Setting("demo.distill_style", 10.0, "", "weight of the Gram distances in the demo", low=0),
    Setting("demo.finetune_epochs", 18.0, "epochs", "the demo finetunes its slim generator", low=0.001),
    Setting("demo.image_size", 64, "pixels", "side of the demo's pictures", low=32, high=512, multiple_of=4),
    Setting("demo.learning_rate", 1e-3, "", "of the demo's training and finetuning", low=1e-8, high=1),
    Setting("demo.ngf", 16, "channels", "first width of the demo's generator and discriminator", low=4, high=64),
    Setting("demo.pictures", 320, "pictures", "the demo trains on, with a part of them held out", low=10, high=100_000),
    Setting("demo.prune_epochs", 3.0, "epochs", "the demo prunes", low=0.001),
    Setting("demo.test_pictures", 32, "pictures", "the demo compares with the truth", low=1, high=10_000),
    Setting("demo.threads", 1, "threads", "the demo trains with; its networks gain little from more", low=1, high=1024),
    Setting("demo.train_epochs", 14.0, "epochs", "the demo trains its original", low=0.001),
    Setting("discriminator.epochs", 3.0, "epochs", "fitting a discriminator, where none is given", low=0.001),
    Setting("discriminator.learning_rate", 2e-4, "", "of its fitting", "CycleGAN", low=1e-8, high=1),
    Setting("discriminator.ndf", 64, "channels", "first width of a discriminator that is fitted", low=4, high=512),
    Setting(
        "distill.content",
        -1.0,
        "",
        "weight of the feature distances; -1: U-Nets 50, others 0.01 paired, else 1",
        "GCC; 1: ours",
        low=-1,
    ),
    Setting("distill.enabled", True, "", "finetuning follows the original's features and pixels", "paper"),
    Setting(
        "distill.form",
        "auto",
        "",
        "a distance is the mean squared error or its root; auto: root for U-Nets, else mse",
        "GCC",
        choices=("auto", "mse", "root"),
    ),
    Setting(
        "distill.pixels", -1.0, "", "weight of the L1 distance to the original's output; -1: 0 paired, else 10", low=-1
    ),
    Setting(
        "distill.style",
        -1.0,
        "",
        "weight of the Gram distances; -1: U-Nets 10000, others 10 paired, else 1000",
        "GCC; 1000: ours",
        low=-1,
    ),
    Setting(
        "export.atol", 1e-4, "output values, -1 to 1", "largest difference from torch that an export may show", low=0
    ),
    Setting("export.opset", 20, "version", "ONNX operators that are written", "torch.onnx's default", low=13, high=23),
    Setting("export.parity_pictures", 2, "pictures", "random pictures on which an export is proven equal", low=1),
    Setting(
        "export.passes",
        "auto",
        "",
        "graph passes: auto (those of the target), none, or names with commas; see docs/compiler.md",
    ),
    Setting(
        "export.picture_color",
        "RGB",
        "",
        "with export.picture_range: order of the colours",
        choices=("RGB", "BGR"),
    ),
    Setting(
        "export.picture_range",
        "",
        "",
        "black and white, as -1,1, of an ONNX file that does not say them, for --io uint8 and for calibration",
    ),
    Setting("export.simplify", True, "", "run onnxsim on the exported graph"),
    Setting("export.tune", True, "", "measure which passes pay, where the target is this machine; false: --no-tune"),
    Setting("export.tune_pairs", 12, "pairs", "pairs of samples that passes are chosen by", low=4, high=1000),
    Setting("export.tune_processes", 6, "processes", "fresh processes for these pairs", low=2, high=100),
    Setting("export.tune_seconds", 60.0, "seconds", "a longer measurement of passes ends early", low=1, high=3600),
    Setting(
        "features.preprocessing",
        "imagenet",
        "",
        "what the feature network wants of a picture: torchvision's, Caffe's, 0..1 or -1..1",
        choices=("imagenet", "caffe", "unit", "signed"),
    ),
    Setting(
        "finetune.batch_size",
        0,
        "pictures",
        "pictures a step of each process; 0: 4 with batch norm, else 1",
        low=0,
        high=1024,
    ),
    Setting("finetune.checks", 20, "", "looks at the held-out pictures over the whole of finetuning", low=1),
    Setting("finetune.discriminator_rate", 1.0, "", "learning rate of D, as a part of G's", low=1e-3, high=10),
    Setting("finetune.epochs", 100.0, "epochs", "finetuning, where --finetune-epochs is not given", low=0.001),
    Setting(
        "finetune.gan_weight",
        -1.0,
        "",
        "weight of the adversarial loss; -1: 0 with distillation, else 1",
        "measured; GCC: 1",
        low=-1,
    ),
    Setting(
        "finetune.learning_rate",
        -1.0,
        "",
        "of the generator; -1: CartoonGAN 0.0002, else 0.001",
        "measured; GCC: 0.0002",
        low=-1,
        high=1,
    ),
    Setting("finetune.recalibration_batches", 200, "batches", "for batch statistics after slimming", low=1),
    Setting(
        "pictures.max_unreadable", 0.05, "fraction", "more unreadable pictures than this are an error", low=0, high=1
    ),
    Setting("quality.max_real", 10_000, "pictures", "most real pictures that distributions are compared with", low=2),
    Setting("quantize.calibration", "mse", "", "first range of activations", choices=("mse", "minmax")),
    Setting("quantize.floats", 0.0, "fraction", "of finetuning that is in floats, before the grids", low=0, high=0.95),
    Setting("quantize.min_psnr", 45.0, "dB", "a quantized network below this to its file is named", low=0, high=1000),
    Setting("quantize.pictures", 16, "pictures", "ranges of activations are found on", low=1, high=10_000),
    Setting("quantize.ranges", "fixed", "", "of activations, in finetuning", choices=("learned", "fixed")),
    Setting("quantize.weights", "channel", "", "what of a weight shares a scale", choices=("channel", "tensor")),
    Setting("quick.bench_pairs", 20, "pairs", "pairs of latency samples with --quick", low=1, high=10_000),
    Setting("quick.discriminator_steps", 100, "steps", "fitting a discriminator with --quick", low=1),
    Setting("quick.encoder_steps", 60, "steps", "encoder with --quick", low=1),
    Setting("quick.finetune_steps", 300, "steps", "finetuning with --quick", low=1),
    Setting("quick.pictures", 60, "pictures", "built-in pictures with --quick", low=10),
    Setting("quick.prune_steps", 200, "steps", "pruning with --quick", low=1),
    Setting("samples.pictures", 8, "pictures", "test pictures that the report shows", low=1, high=12),
    Setting(
        "segmenter.gives",
        "auto",
        "",
        "a score for every class, or a label picture in RGB; auto: colors where the output has 3 channels",
        choices=("auto", "classes", "colors"),
    ),
    Setting(
        "segmenter.palette",
        "",
        "",
        "colour of every class, in order, such as 0000aa ff5500; empty: learnt from the training labels",
    ),
    Setting(
        "segmenter.preprocessing",
        "auto",
        "",
        "what it wants of a picture; auto: signed for colors, imagenet for classes",
        choices=("auto", "imagenet", "caffe", "unit", "signed"),
    ),
    Setting(
        "train.batch_size", 1, "pictures", "pictures a step of each process", "CycleGAN, pix2pix", low=1, high=1024
    ),
    Setting("train.beta_1", 0.5, "", "of Adam", "CycleGAN, pix2pix", low=0, high=0.999),
    Setting(
        "train.decay", 0.5, "fraction", "of the steps over which the learning rate falls", "CycleGAN", low=0, high=1
    ),
    Setting("train.epochs", 200.0, "epochs", "training, where --epochs is not given", "CycleGAN", low=0.001),
    Setting("train.flip", True, "", "mirror every other picture", "CycleGAN, pix2pix"),
    Setting(
        "train.gan",
        "auto",
        "",
        "adversarial loss; auto: lsgan for CycleGAN, vanilla for pix2pix",
        choices=("auto", "lsgan", "hinge", "vanilla"),
    ),
    Setting("train.lambda_cycle", 10.0, "", "weight of the cycle loss", "CycleGAN", low=0),
    Setting("train.lambda_identity", 0.5, "", "of the identity loss, times that of the cycle", "CycleGAN", low=0),
    Setting("train.lambda_l1", 100.0, "", "weight of the L1 distance to the truth", "pix2pix", low=0),
    Setting("train.learning_rate", 2e-4, "", "of all networks", "CycleGAN, pix2pix", low=1e-8, high=1),
    Setting("train.pool", 50, "pictures", "generated pictures that a discriminator's pool keeps", "CycleGAN", low=0),
    Setting(
        "train.precision",
        "auto",
        "",
        "of every training; auto: bf16 for ResNets where the processor has it",
        choices=("auto", "fp32", "bf16"),
    ),
    Setting("translate.sheet_pictures", 8, "pictures", "rows of the contact sheet; 0: no sheet", low=0, high=64),
    Setting("verify.atol", 1e-4, "output values, -1 to 1", "largest difference that passes", low=0),
    Setting("verify.pictures", 4, "pictures", "built-in pictures that are compared on without --images", low=1),
)
SETTINGS: tuple[Setting, ...] = tuple(
    sorted((*_TABLE, *METHOD_SETTINGS, *PRECISION_SETTINGS), key=lambda setting: setting.name)
)
_BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


class Settings:
    """The settings in effect: defaults, over them a preset's, over those a TOML file, over that single values."""

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values: dict[str, Value] = {setting.name: setting.default for setting in SETTINGS}
        self._given = frozenset(values or ())
        for name, value in (values or {}).items():
            self._values[name] = _named(name).parse(value)

    @classmethod
    def load(
        cls,
        config: Path | None = None,
        overrides: Sequence[str] = (),
        defaults: Mapping[str, object] | None = None,
    ) -> Settings:
        """Read a TOML file, whose tables are the parts of the names, and then `NAME=VALUE` texts.

        `defaults` go before both: a preset's values, by name.

        Raises:
            InputError: the file cannot be read, or is no TOML.
            SettingError: a name or a value is impossible.
        """
        values: dict[str, object] = dict(defaults or {})
        values |= {} if config is None else flatten(read_toml(config))
        for text in overrides:
            name, equals, value = text.partition("=")
            if not equals:
                raise SettingError(f"'{text}' sets nothing", hint="write NAME=VALUE")
            values[name.strip()] = value.strip()
        return cls(values)

    def with_value(self, name: str, value: object) -> Settings:
        """Return the same settings with another value for one; None changes nothing."""
        if value is None:
            return self
        changed = Settings({**self._values, name: value})
        changed._given = self._given | {name}
        return changed

    def __getitem__(self, name: str) -> Any:
        return self._values[_named(name).name]

    def given(self, name: str) -> Any:
        """Return a setting's value where somebody chose it, if only its default; None where nobody did."""
        return self[name] if name in self._given else None

    def to_json(self) -> dict[str, Value]:
        """Return every setting's value by name."""
        return dict(self._values)


def _named(name: str) -> Setting:
    if name not in _BY_NAME:
        import difflib

        close = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {close[0]}?" if close else "`mggc-edge settings` lists all"
        raise SettingError(f"there is no setting '{name}'", hint=hint)
    return _BY_NAME[name]
