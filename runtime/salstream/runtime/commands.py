"""What the commands of all parts share."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class ManyValues(TyperCommand):
    """A command whose repeatable options also take several values: ``--clips a.mp4 b.mp4``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values."""
        many = {
            name
            for parameter in self.params
            if getattr(parameter, "multiple", False)
            for name in parameter.opts
        }
        spread: list[str] = []
        current, values = "", 0
        for argument in args:
            if argument.startswith("-"):
                current, values = (argument if argument in many else ""), 0
            elif current:
                values += 1
                if values > 1:
                    spread.append(current)
            spread.append(argument)
        return super().parse_args(ctx, spread)
