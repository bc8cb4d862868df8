"""Private names of Hydra and OmegaConf. Other modules of nnopt import them only from here."""

from hydra._internal.config_loader_impl import ConfigLoaderImpl as ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository as IConfigRepository
from hydra._internal.grammar import grammar_functions as grammar_functions
from hydra._internal.grammar.functions import Functions as Functions
from hydra._internal.hydra import Hydra as Hydra
from omegaconf._utils import get_yaml_loader as get_yaml_loader
