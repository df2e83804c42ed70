"""What a scenario says about training: jobs, reinforcement-learning roll-outs and the model that comes out."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Name, NonNegative, Record


class Rollouts(Record):
    """Answers that a reinforcement-learning step generates, played on the serving engine."""

    system: dict[str, Any]
    """Serving system of one roll-out instance, as in a stage."""
    lengths: str | dict[str, Any] = "servegen_deepseek-r1"
    """Prompt and answer lengths."""
    requests: PositiveInt
    """Answers generated in one step, over all GPUs of the job."""


class Launch(Record):
    """What a finished training job changes in a service: the better model enters."""

    service: Name
    """Service that gets the model."""
    after_days: NonNegative = 0.0
    """Days between the end of training and the launch: evaluation, red teaming."""
    demand_multiplier: PositiveFloat = 1.0
    """Times the demand, once adopted."""
    adoption_days: NonNegative = 14.0
    """Days of adoption, linear (demand.csv: stabilises within weeks)."""
    price_multiplier: PositiveFloat = 1.0
    """Times the list prices from the launch on."""
    loss_before: PositiveFloat | None = None
    """Loss of the model that served until then, nats/token; with it a lower loss of the new one moves demand too."""
    demand_per_nat: NonNegative = 0.0
    """Answer to quality: demand is multiplied by exp(this x (loss_before - loss of the new model))."""

    @model_validator(mode="after")
    def _quality(self) -> "Launch":
        if self.demand_per_nat and self.loss_before is None:
            raise ValueError("demand_per_nat needs loss_before, the loss of the model that served until then")
        return self


class TrainingJob(Record):
    """One training run on GPUs of its own, or on those that a service lends it."""

    gpu: Name
    """GPU, e.g. h100."""
    gpus: NonNegativeInt = 0
    """GPUs of its own; 0: only lent ones."""
    spare_gpus: NonNegativeInt = 0
    """GPUs beside its own that stand ready to take the place of broken ones; paid for."""
    without_spares: Literal["shrink", "wait"] = "shrink"
    """When own GPUs are being repaired and no spare is left: go on with fewer, or stand still until they are back."""
    site: Name = "main"
    """Site."""
    kind: Literal["pretraining", "fine_tuning", "reinforcement"] = "pretraining"
    """What it is; reinforcement needs `rollouts`."""
    model: str | None = None
    """Model of the catalogue that is trained; its active parameters count."""
    params_active: PositiveFloat | None = None
    """Parameters used per token, where the model is not in the catalogue."""
    tokens: PositiveFloat | None = None
    """Tokens to train on; without: the compute-optimal number for the parameters."""
    over_trained: PositiveFloat = 1.0
    """Times the compute-optimal tokens (with `tokens` left out)."""
    steps: PositiveInt | None = None
    """Reinforcement: steps."""
    mfu: str | Annotated[float, Field(gt=0, le=1)] = "Llama 3.1-405B"
    """Model FLOPs utilisation: a measured run of `tokenization.csv`, or a number."""
    precision: Literal["bf16", "fp8"] = "bf16"
    """Precision of the matrix products; MFU is relative to its peak."""
    from_day: NonNegative = 0.0
    """Day on which it starts."""
    checkpoint_minutes: PositiveFloat | None = None
    """Time between check-points; without: the optimum of Young (1974) from write time and failures."""
    checkpoint_s: NonNegative | None = None
    """Time to write one while training waits, seconds (operations.csv: checkpoint_write)."""
    restart_s: NonNegative | None = None
    """From an interruption, or a change of size, to the next step, seconds (operations.csv: training_restart)."""
    pause_when_curtailed: bool = True
    """Whether it stands still while a curtailment call holds at its site."""
    rollouts: Rollouts | None = None
    """Answers generated in each step of reinforcement learning."""
    launch: Launch | None = None
    """What happens when it is finished."""

    @model_validator(mode="after")
    def _whole(self) -> "TrainingJob":
        if (self.model is None) == (self.params_active is None):
            raise ValueError("give exactly one of model and params_active")
        if (self.kind == "reinforcement") != (self.rollouts is not None and self.steps is not None):
            raise ValueError("reinforcement goes together with rollouts and steps")
        return self
