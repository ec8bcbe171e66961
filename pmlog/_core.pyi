"""The compiled module; `pmlog._engine` is its only importer and gives it types."""

from typing import Any

ffi: Any
lib: Any
