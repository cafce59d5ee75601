"""The typed configuration. Hydra composes YAML into a plain dict; `parse` turns it into these models.

Every key of every YAML under `configs/` exists here with its type, its default and what it means, so a
misspelt key, a value out of range or two keys that contradict one another fail before anything runs.
"""

from dareu.config.attributor import AttributorConfig, AttributorOptim, BackboneConfig
from dareu.config.base import (
    Count,
    MethodBase,
    NonNegative,
    Optim,
    OptimBase,
    Positive,
    Share,
    Strict,
    TopK,
    UnlearningOptim,
)
from dareu.config.data import (
    AuthorsConfig,
    Columns,
    DataConfig,
    ExternalConfig,
    ForgetConfig,
    HubConfig,
    HubSource,
    LocalConfig,
    LumeConfig,
    MuseConfig,
    RoundsConfig,
    RwkuConfig,
    SotuConfig,
    TofuConfig,
    WaterdrumArxivConfig,
    WmdpConfig,
)
from dareu.config.methods import (
    AlternatesConfig,
    LossMethodConfig,
    LossOptim,
    MethodConfig,
    NewtonConfig,
    VectorConfig,
)
from dareu.config.models import HFConfig, LoraConfig, ModelConfig, PretrainConfig, TinyConfig
from dareu.config.parsing import parse
from dareu.config.rl import (
    AdvantageConfig,
    DareUConfig,
    RefusalPhase,
    RetainPromptsConfig,
    RewardConfig,
    StopConfig,
    WarmStart,
)
from dareu.config.run import EvaluationConfig, LoggingConfig, RunConfig
