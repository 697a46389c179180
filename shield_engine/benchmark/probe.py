"""Run by path in a fresh process: what the engine and each model add to resident memory.

It imports as little as it can, because whatever it imports is measured. The argument is JSON of
`home`, `registry`, `offline` and `models` (pairs of task and variant); the answer is JSON.
"""

import sys
import time
from pathlib import Path

import numpy as np
import psutil


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _answer(order: str) -> str:
    start = _resident()
    import json

    from shield_engine.config import MLConfig, ScannerConfig
    from shield_engine.engine import Shield
    from shield_engine.settings import Settings
    from shield_engine.types import Mode, Task, Variant

    wanted = json.loads(order)
    registry = Path(wanted["registry"]) if wanted["registry"] else None
    shield = Shield.create(
        Settings(Path(wanted["home"]), offline=wanted["offline"], registry=registry)
    )
    shield.scanner(Task.PROMPT_INJECTION, ScannerConfig()).scan("Good morning.")
    marks = [_resident()]
    first_verdict_at = 0.0
    for task, variant in wanted["models"]:
        config = ScannerConfig(mode=Mode.ML, ml=MLConfig.evaluation(Variant(variant)))
        shield.scanner(Task(task), config).scan("Please summarise the report for the board. " * 10)
        first_verdict_at = first_verdict_at or time.time()
        marks.append(_resident())
    return json.dumps(
        {
            "engine_mb": (marks[0] - start) / 1e6,
            "models_mb": (np.diff(marks) / 1e6).tolist(),
            "total_mb": (marks[-1] - start) / 1e6,
            "first_verdict_at": first_verdict_at,
        }
    )


if __name__ == "__main__":
    sys.stdout.write(_answer(sys.argv[1]))
