"""A gate's outcome as JUnit XML, which build servers show as test results."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from shield_engine.gates import GateOutcome, Judgement, Outcome
from shield_engine.hostile_text import xml_text
from shield_engine.reports.report import leaves

__all__ = ["gate_junit"]


def gate_junit(outcome: GateOutcome, *, strict: bool = False) -> str:
    """Return JUnit XML: a test case a requirement, the run's stamp as properties.

    Args:
        outcome: What came of the gate.
        strict: Write inconclusive requirements as failures instead of skipped ones.
    """
    name = xml_text(outcome.gate.name)
    failed = sum(_is_failure(judgement, strict=strict) for judgement in outcome.judgements)
    passed = sum(judgement.outcome is Outcome.PASS for judgement in outcome.judgements)
    counts = {
        "tests": str(len(outcome.judgements)),
        "failures": str(failed),
        "errors": "0",
        "skipped": str(len(outcome.judgements) - passed - failed),
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": "shield gate", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": f"gate {name}", **counts})
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(outcome):
        ET.SubElement(properties, "property", {"name": xml_text(key), "value": xml_text(value)})
    for number, judgement in enumerate(outcome.judgements, start=1):
        _add_case(suite, f"gate.{name}", number, judgement, strict=strict)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _is_failure(judgement: Judgement, *, strict: bool) -> bool:
    return judgement.outcome is Outcome.FAIL or (
        strict and judgement.outcome is Outcome.INCONCLUSIVE
    )


def _properties(outcome: GateOutcome) -> list[tuple[str, str]]:
    head = {
        "outcome": outcome.outcome.value,
        "run": outcome.run_id,
        "judged": outcome.candidate,
        "baseline_run": outcome.baseline_run_id,
        "baseline": outcome.baseline or None,
        "seed": outcome.seed,
    }
    return [*leaves(head), *leaves({"stamp": outcome.stamp})]


def _add_case(
    suite: ET.Element, classname: str, number: int, judgement: Judgement, *, strict: bool
) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": classname,
            "name": xml_text(f"{number}. {judgement.requirement.title}"),
            "time": "0",
        },
    )
    message = xml_text("; ".join(filter(None, (judgement.reason, judgement.advice))))
    if _is_failure(judgement, strict=strict):
        failure = {"message": message, "type": judgement.outcome.value}
        ET.SubElement(case, "failure", failure).text = xml_text(
            f"{judgement.subject}\n{judgement.method}"
        )
    elif judgement.outcome is not Outcome.PASS:
        ET.SubElement(case, "skipped", {"message": f"{judgement.outcome.value}: {message}"})
    else:
        ET.SubElement(case, "system-out").text = xml_text(
            f"{judgement.subject}: {judgement.reason}"
        )
