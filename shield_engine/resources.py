"""Finds the files that travel with the package, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

from shield_engine.errors import ArtifactError

__all__ = ["bundled"]


def bundled(*parts: str) -> Path:
    """Return the path of a bundled file or folder, such as `bundled("models", "registry.json")`.

    A wheel carries `models/` and `datasets/` inside the package (`_bundled/`); a checkout has them
    beside it. The wheel's copy is looked for first, as a checkout never has one.

    Raises:
        ArtifactError: Nothing of that name travels with the package.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "_bundled", package.parent)
    for root in candidates:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    searched = " or ".join(str(root.joinpath(*parts)) for root in candidates)
    raise ArtifactError(
        f"bundled file {'/'.join(parts)} is missing: neither {searched} exists; "
        "install the package again or restore the checkout"
    )
