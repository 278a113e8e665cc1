"""What to make: vocabularies, prompts, quotas and plans. A plan is a pure function of its config."""

from synthfer.planning.plan import Plan, PlanConfig, build

__all__ = ["Plan", "PlanConfig", "build"]
