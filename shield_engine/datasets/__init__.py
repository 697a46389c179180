"""Reading users' files: sniff what they are, map their columns, import or quarantine every row.

Hides formats, encodings, broken quotes and label spellings. Nothing is written to disk: the store
takes `ImportedDataset.table`.
"""

from shield_engine.datasets.importing import (
    MAX_LABEL_VALUES,
    ImportedDataset,
    SourceFile,
)
from shield_engine.datasets.joining import JoinedScores, join_rows
from shield_engine.datasets.labels import default_label_map, parse_label_map
from shield_engine.datasets.profile import DatasetProfile
from shield_engine.datasets.records import QuarantinedRow
from shield_engine.datasets.scores import GivenScores, ScoreColumn, parse_scores, score_hints
from shield_engine.datasets.sniffing import ColumnMapping, Sniffed, dataset_name

__all__ = [
    "MAX_LABEL_VALUES",
    "ColumnMapping",
    "DatasetProfile",
    "GivenScores",
    "ImportedDataset",
    "JoinedScores",
    "QuarantinedRow",
    "ScoreColumn",
    "Sniffed",
    "SourceFile",
    "dataset_name",
    "default_label_map",
    "join_rows",
    "parse_label_map",
    "parse_scores",
    "score_hints",
]
