"""The boxes of the drawing in docs/architecture.md: each has a key, and is built, or taken from the store, on call."""

from dareu.workflow.stages.attributor import AttributorStage
from dareu.workflow.stages.base import Artifact, Stage
from dareu.workflow.stages.evaluation import Evaluated, Evaluation
from dareu.workflow.stages.models import BaseModelStage, Checkpoint, FineTuned, Imported
from dareu.workflow.stages.unlearned import Unlearned
from dareu.workflow.stages.wiring import SEED, Stages
