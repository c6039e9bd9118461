"""The parameters that notebooks declare, and their values from the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterable
from typing import Any

from dcn_study.errors import ConfigurationError, PageError, did_you_mean
from dcn_study.runs.configuration import RULES
from dcn_study.runs.files import project_root
from dcn_study.runs.rules import Rule

__all__ = ["Parameter", "notebook_parameters", "parse_parameters"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
VALUES = re.compile(r"(.*?)\s*\[([^\]]+)\]")  # a comment that ends with the valid values


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a notebook.

    Attributes:
        name: its name.
        type: "int", "float", "str" or "bool".
        optional: whether it may be None.
        default: its default, as Python writes it.
        meaning: what it means.
        values: those that are valid: a `Rule`, "several 1 to 10" for integers in one text and "several 0.1 to 1" for
            numbers, or "a template" of `notebooks`; empty if all are.
    """

    name: str
    type: str
    optional: bool
    default: str
    meaning: str
    values: str = ""

    @property
    def rule(self) -> str:
        """Its type and valid values, for a table."""
        if self.values.startswith("several "):
            return f"{self.values.replace('several', self._each, 1)}; several separated by commas"
        return f"{self.type} {self.values}".rstrip()

    @property
    def _each(self) -> str:
        return "float" if "." in self.values else "int"

    def parse(self, text: str) -> Any:
        """Returns the value that a text stands for.

        Raises:
            ConfigurationError: if it is not of the parameter's type, or none of its valid values.
        """
        if self.optional and text == "None":
            return None
        if self.values.startswith("several "):
            one = dataclasses.replace(self, type=self._each, values=self.values.removeprefix("several "))
            for part in text.split(","):
                one.parse(part)
            return text
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type == "bool" else TYPES[self.type](text)
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"{self.name} must be of type {self.type}. Received: {self.name}={text!r}"
            ) from None
        holds, rule = self._valid(value)
        if not holds:
            hint = did_you_mean(text, rule.removeprefix("one of ").split(", ")) if self.type == "str" else ""
            raise ConfigurationError(
                f"{self.name} must be {rule}. Received: {self.name}={text}{hint.removesuffix('.')}"
            )
        return value

    def _valid(self, value: Any) -> tuple[bool, str]:
        """Returns whether a value is valid, and the rule in words."""
        if not self.values:
            return True, ""
        if self.values == "a template":
            names = sorted(path.stem for path in (project_root() / "notebooks").glob("*.ipynb"))
            return value in ("", *names), f"one of {', '.join(names)}, or empty for all"
        rule = Rule(self.values)
        return rule.holds(value), rule.words


def notebook_parameters(notebook: str) -> dict[str, Parameter]:
    """Returns the parameters of a template in `notebooks`, by name, as its cell tagged `parameters` states them.

    A line such as `images: int = 500  # test images, from the first [1 to 10000]` declares one. Fields of a run's
    configuration have their rules from there.

    Raises:
        PageError: if the notebook is missing or damaged, or has no such cell.
    """
    from papermill.inspection import inspect_notebook

    path = project_root() / "notebooks" / f"{notebook}.ipynb"
    if not path.is_file():
        raise PageError(f"{path} is missing. Restore it with: git checkout {path}")
    try:
        found = inspect_notebook(str(path))
    except Exception as error:  # a damaged file raises errors of many modules
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise PageError(f"{path} is not a valid notebook: {what}. Restore it with: git checkout {path}") from error
    if not found:
        raise PageError(f"{path} has no cell tagged 'parameters' that assigns any")
    parameters = {}
    for name, given in found.items():
        declared = given["inferred_type_name"]
        kind = declared.removeprefix("Optional[").removesuffix("]")
        if kind not in TYPES:
            raise PageError(f"{path}: parameter {name} must be declared int, float, str or bool. Received: {declared}")
        comment = VALUES.fullmatch(given["help"])
        field = RULES[name].text if name in RULES else ""
        meaning, values = comment.groups() if comment else (given["help"], field)
        parameters[name] = Parameter(name, kind, kind != declared, given["default"], meaning, values)
    return parameters


def parse_parameters(notebook: str, given: Iterable[str], without: Container[str] = ()) -> dict[str, Any]:
    """Returns the values of `KEY=VALUE` texts, typed as the notebook declares them.

    Args:
        notebook: name of the template.
        given: the texts.
        without: parameters of the notebook that may not be given.

    Raises:
        ConfigurationError: if a name is unknown, a text is not of this form, or a value not of the type.
    """
    valid = {name: each for name, each in notebook_parameters(notebook).items() if name not in without}
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"a parameter must be given as KEY=VALUE. Received: {text!r}")
        if name not in valid:
            names = ", ".join(f"{parameter.name} ({parameter.type})" for parameter in valid.values())
            raise ConfigurationError(
                f"unknown parameter {name}{did_you_mean(name, valid)} Valid parameters are: {names}"
            )
        values[name] = valid[name].parse(value)
    return values
