"""Puts `models/` and `datasets/` into a wheel; an editable install reads them from the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundledFiles(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Copied into an editable install, the files would hide the package itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders to wheels that carry the code."""
        if version == "standard":
            build_data["force_include"] = {
                name: f"shield_engine/_bundled/{name}" for name in ("models", "datasets")
            }
