"""Predicates: what a split says of a factor's numbers, ``x < 0.2`` or ``r > 0.5 and b > 0.4``.

The language has numbers, the names of the factor's components, ``+ - * /``, comparisons (chained as
in mathematics, ``1 <= x <= 3``), ``and``, ``or``, ``not`` and brackets; nothing else.

Unusual: Python's own parser reads the text, but nothing is ever executed. The tree is walked here,
on tensors, and whatever is not in the language is an error that says so. What has no answer, as
after a division by zero, is an error too: a clip must be known to be novel or known not to be.
"""

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.world.factors import Factor

_LONGEST = 200  # characters: no text can nest deeper than Python's stack
_LARGEST = 1e30  # a number in a predicate; those of clips are float32
_LANGUAGE = "legal: numbers, names, + - * /, comparisons, and, or, not, brackets"

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Lt: torch.lt,
    ast.LtE: torch.le,
    ast.Gt: torch.gt,
    ast.GtE: torch.ge,
    ast.Eq: torch.eq,
    ast.NotEq: torch.ne,
}


@dataclass(frozen=True)
class Predicate:
    """What is true of some clips, by their own numbers of one factor, and false of others."""

    factor: Factor
    text: str

    @classmethod
    def of(cls, factor: Factor, text: str) -> "Predicate":
        """The checked predicate; its text is written in one way, so that it can be compared."""
        predicate = cls(factor, ast.unparse(parse(text)))
        nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0, factor.value_size)
        predicate(*nothing)  # unknown words are found without a clip
        return predicate

    def __call__(
        self, classes: Int64[Tensor, " b"], values: Float[Tensor, "b v"]
    ) -> Bool[Tensor, " b"]:
        """Of each clip, by its class and its (padded) values."""
        factor, numbers = self.factor, numbers_of(self.factor, classes, values)
        if not torch.isfinite(numbers).all():
            raise UserError(
                f"a clip's {factor.name} is not a finite number, so the split cannot tell whether "
                f"{self.text!r}; complete the table, or leave {factor.name!r} out of the split"
            )
        known = dict(zip(component_names(factor), numbers.unbind(1), strict=True))
        try:
            return _truth(parse(self.text), known).expand(len(numbers))
        except UserError as error:
            raise UserError(f"the split's predicate of {factor.name!r}: {error}") from None

    def said_of(self, values: Float[Tensor, " v"]) -> str:
        """``r 0.9, g 0.1, b 0.1``: a clip's numbers, by name."""
        names = component_names(self.factor)[: self.factor.value_size]
        return ", ".join(f"{name} {x:.4g}" for name, x in zip(names, values.tolist(), strict=False))


def require_one_number(factor: Factor) -> None:
    """Raise UserError unless a range can be told of the factor."""
    names = component_names(factor)
    if names != ("x",):
        raise UserError(
            f"split.seen.{factor.name}: a range is of one number, not of {', '.join(names)}; "
            "use rule=base_novel with a predicate"
        )


def component_names(factor: Factor) -> tuple[str, ...]:
    """What predicates call the numbers of a factor: ``r g b`` of a colour, else ``x y z``, or
    ``x0 x1 ...`` if there are more."""
    size = factor.value_size or 1  # without numbers, those that its classes are named after
    if size > 3:
        return tuple(f"x{k}" for k in range(size))
    return tuple("rgb" if size == 3 and factor.unit.startswith("rgb") else "xyz"[:size])


def numbers_of(
    factor: Factor, classes: Int64[Tensor, " b"], values: Float[Tensor, "b v"]
) -> Float[Tensor, "b n"]:
    """The clips' own numbers of a factor; without any, the numbers that its classes are named
    after, as in a table whose column `count` says 3."""
    if factor.value_size:
        return values[:, : factor.value_size]
    try:
        named = [[float(name)] for name in factor.class_names]
    except ValueError:
        raise UserError(
            f"factor {factor.name!r} has no numbers for a predicate or a range; list its novel "
            f"classes: {', '.join(factor.class_names)}"
        ) from None
    return torch.tensor(named, device=classes.device)[classes]


def parse(text: str) -> ast.expr:
    """The tree of a text; raises UserError unless it is one expression."""
    if len(text) > _LONGEST:
        raise UserError(f"a predicate has at most {_LONGEST} characters, got {len(text)}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UserError(f"{text!r} is no predicate, such as 'x < 0.2'; {_LANGUAGE}") from None


def _truth(node: ast.expr, known: Mapping[str, Tensor]) -> Tensor:
    match node:
        case ast.BoolOp(op=op, values=parts):
            join = torch.logical_and if isinstance(op, ast.And) else torch.logical_or
            return functools.reduce(join, [_truth(part, known) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_truth(part, known)
        case ast.Compare(left=first, ops=ops, comparators=others) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            sides = [_number(side, known) for side in (first, *others)]
            links = [
                _COMPARISONS[type(op)](a, b)
                for op, a, b in zip(ops, sides[:-1], sides[1:], strict=True)
            ]
            return functools.reduce(torch.logical_and, links)
        case _:
            raise UserError(f"{ast.unparse(node)!r} is neither true nor false; {_LANGUAGE}")


def _number(node: ast.expr, known: Mapping[str, Tensor]) -> Tensor:
    match node:
        case ast.Constant(value=int() | float() as value) if (
            not isinstance(value, bool) and abs(value) < _LARGEST
        ):
            return torch.tensor(float(value))
        case ast.Name(id=name):
            if name not in known:
                raise UserError(f"there is no number {name!r}; {nearest(name, known)}")
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_number(part, known)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            result = _ARITHMETIC[type(op)](_number(left, known), _number(right, known))
            if not torch.isfinite(result).all():
                raise UserError(f"{ast.unparse(node)!r} divides by zero or is too large")
            return result
        case _:
            raise UserError(f"{ast.unparse(node)!r} is not a number; {_LANGUAGE}")
