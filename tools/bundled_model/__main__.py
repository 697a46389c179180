"""Make the bundled model, its linear tiers and the figures of its card; `--help` tells each."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from shield_engine.engine import Shield
from shield_engine.errors import ShieldError
from shield_engine.heuristics.linear import weights_path
from shield_engine.settings import bundled
from shield_engine.types import Task
from tools.bundled_model.card import write_card
from tools.bundled_model.fit import MIXTURE_SEED, make_model
from tools.bundled_model.linear_tier import make_tier
from tools.bundled_model.mixture import load_mixture

__all__ = ["main"]


def main() -> None:
    """Run one of the makers; exit 1 with a message if it cannot."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = _parser().parse_args()
    try:
        if options.maker == "card":
            write_card(options.folder, options.card)
        elif options.maker == "fit":
            make_model(options.pools, options.project, options.out)
        else:
            mixture = load_mixture(options.pools, options.project, seed=MIXTURE_SEED)
            for task in (Task.PROMPT_INJECTION, Task.TOXICITY):
                path = options.out / weights_path(task).name if options.out else weights_path(task)
                make_tier(task, mixture, Shield.create(), path)
    except (ShieldError, OSError) as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.bundled_model", description=__doc__)
    makers = parser.add_subparsers(dest="maker", required=True)
    fit = makers.add_parser("fit", help="both stages, calibration and export; resumes if cut off")
    tier = makers.add_parser(
        "linear-tier", help="hybrid's middle tiers, once the model is registered"
    )
    for maker in (fit, tier):
        maker.add_argument("pools", type=Path, help="folder of the public train pools")
        maker.add_argument(
            "--project",
            type=Path,
            default=bundled("datasets", "training"),
            help="the project's own texts",
        )
    fit.add_argument("--out", type=Path, default=Path("build"), help="folder of weights and model")
    tier.add_argument("--out", type=Path, help="folder of the weights; the bundled ones if absent")
    card = makers.add_parser("card", help="measure the figures of the model card again")
    card.add_argument("folder", type=Path, help="test sets: injection/, toxicity/, sentiment/")
    card.add_argument("--card", type=Path, help="card to write into; printed if absent")
    return parser


if __name__ == "__main__":
    main()
