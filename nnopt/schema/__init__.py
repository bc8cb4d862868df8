"""The configuration: one frozen dataclass per config group, with the range of every value.

The YAML files under ``conf/`` hold the values and explain the keys to the user; here, in a file for
each group, are their types and ranges. A group whose files differ in their keys (a spiral has
points, MNIST does not) has one dataclass per file, found by its ``name``.
``nnopt.schema.reader`` reads YAML into these classes.
"""

from nnopt.schema.architecture import Activation as Activation
from nnopt.schema.architecture import ArchitectureVariant as ArchitectureVariant
from nnopt.schema.architecture import LayersConfig as LayersConfig
from nnopt.schema.architecture import MlpConfig as MlpConfig
from nnopt.schema.architecture import ResnetConfig as ResnetConfig
from nnopt.schema.architecture import ThreeLayerConvConfig as ThreeLayerConvConfig
from nnopt.schema.architecture import TorchvisionConfig as TorchvisionConfig
from nnopt.schema.architecture import VggConfig as VggConfig
from nnopt.schema.backend import BackendVariant as BackendVariant
from nnopt.schema.backend import ConvAlgorithm as ConvAlgorithm
from nnopt.schema.backend import NumpyConfig as NumpyConfig
from nnopt.schema.backend import TorchConfig as TorchConfig
from nnopt.schema.config import VARIANTS as VARIANTS
from nnopt.schema.config import WITHOUT_EFFECT as WITHOUT_EFFECT
from nnopt.schema.config import Config as Config
from nnopt.schema.config import EarlyStoppingConfig as EarlyStoppingConfig
from nnopt.schema.config import draws_plots as draws_plots
from nnopt.schema.config import learning_rate as learning_rate
from nnopt.schema.config import weight_decay as weight_decay
from nnopt.schema.dataset import CsvConfig as CsvConfig
from nnopt.schema.dataset import DataConfig as DataConfig
from nnopt.schema.dataset import DatasetConfig as DatasetConfig
from nnopt.schema.dataset import DatasetVariant as DatasetVariant
from nnopt.schema.dataset import ImageConfig as ImageConfig
from nnopt.schema.dataset import SpiralConfig as SpiralConfig
from nnopt.schema.dataset import TwoClassConfig as TwoClassConfig
from nnopt.schema.dataset import Validation as Validation
from nnopt.schema.initializer import Initializer as Initializer
from nnopt.schema.initializer import InitializerConfig as InitializerConfig
from nnopt.schema.launcher import LAUNCHERS as LAUNCHERS
from nnopt.schema.launcher import LauncherConfig as LauncherConfig
from nnopt.schema.launcher import PoolConfig as PoolConfig
from nnopt.schema.launcher import RayConfig as RayConfig
from nnopt.schema.launcher import SequentialConfig as SequentialConfig
from nnopt.schema.launcher import SubmititConfig as SubmititConfig
from nnopt.schema.optimizer import AdagradConfig as AdagradConfig
from nnopt.schema.optimizer import AdamConfig as AdamConfig
from nnopt.schema.optimizer import LearningRate as LearningRate
from nnopt.schema.optimizer import LionConfig as LionConfig
from nnopt.schema.optimizer import MomentumConfig as MomentumConfig
from nnopt.schema.optimizer import MuonConfig as MuonConfig
from nnopt.schema.optimizer import OptimizerVariant as OptimizerVariant
from nnopt.schema.optimizer import RmspropConfig as RmspropConfig
from nnopt.schema.optimizer import ScheduleFreeAdamwConfig as ScheduleFreeAdamwConfig
from nnopt.schema.optimizer import ScheduleFreeConfig as ScheduleFreeConfig
from nnopt.schema.optimizer import ScheduleFreeSgdConfig as ScheduleFreeSgdConfig
from nnopt.schema.optimizer import SgdConfig as SgdConfig
from nnopt.schema.optimizer import SharedOptimizer as SharedOptimizer
from nnopt.schema.optimizer import TorchOptimizer as TorchOptimizer
from nnopt.schema.range import LARGEST_SEED as LARGEST_SEED
from nnopt.schema.range import Entries as Entries
from nnopt.schema.range import Range as Range
from nnopt.schema.range import Text as Text
from nnopt.schema.regularizer import AugmentationConfig as AugmentationConfig
from nnopt.schema.regularizer import RegularizerConfig as RegularizerConfig
from nnopt.schema.schedule import ConstantConfig as ConstantConfig
from nnopt.schema.schedule import CosineConfig as CosineConfig
from nnopt.schema.schedule import ExponentialConfig as ExponentialConfig
from nnopt.schema.schedule import InverseTimeConfig as InverseTimeConfig
from nnopt.schema.schedule import OneCycleConfig as OneCycleConfig
from nnopt.schema.schedule import PlateauConfig as PlateauConfig
from nnopt.schema.schedule import ScheduleVariant as ScheduleVariant
from nnopt.schema.schedule import StepConfig as StepConfig
from nnopt.schema.sweeper import SWEEPERS as SWEEPERS
from nnopt.schema.sweeper import GridConfig as GridConfig
from nnopt.schema.sweeper import OptunaConfig as OptunaConfig
from nnopt.schema.sweeper import SweeperConfig as SweeperConfig
