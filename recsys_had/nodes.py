"""The model graph as it is written in an experiment: named nodes, each naming its inputs.

A node is written as briefly as it allows::

    nodes:
      linear:                               # the layer of the same name, on the field embeddings
      pairs: bilinear                       # a layer under a name of one's own
      gated: [senet, bilinear]              # a chain: each feeds the next
      deep: {layer: mlp, inputs: [pairs, gated], hidden_units: [400, 400]}
      mine:                                 # an interaction of one's own; see `formula.py`
        formula: |
          gate = sigmoid(lin(pool(x, "C", "mean"), "T"))
          lin(outer(x * gate, x, "upper"), "T", out=width)
        width: 16                           # a name for the formula

``inputs`` names nodes that stand above, ``fields`` (the embeddings, the default), ``dense`` (the
numeric columns), ``joint`` (the field that those of kind ``mlp`` share, as in DLRM), a content
vector of the dataset card, or one of the model's further ``tables`` and ``groups`` of fields. The
nodes nobody reads are the heads; the logit is their sum, or their mean with ``combine: mean``.
"""

import math
from typing import TYPE_CHECKING, Any

import pydantic

from recsys_had import interactions
from recsys_had.errors import ConfigError
from recsys_had.interactions.formula import FormulaError, express_formula
from recsys_had.option_value import option_value
from recsys_had.suggest import nearest

if TYPE_CHECKING:
    from recsys_had.interactions.algebra import Expr

# The field that numeric columns of kind `mlp` make together.
JOINT = "joint"
SOURCES = ("fields", "dense", JOINT)
# The layer of a node that says itself what it computes.
FORMULA = "formula"
_OVERRIDDEN = ", with overrides"


class Placed(str):
    """A text that knows where it stands, for what is found wrong when the model is built.

    Args:
        text: a layer's name or a formula.
        place: ``file:line`` of its key.

    >>> Placed("lin(x)", place="mine.yaml:7") == "lin(x)"
    True
    """

    place: str

    def __new__(cls, text: str, *, place: str) -> "Placed":
        """The text, which is compared and written as any other."""
        found = super().__new__(cls, text)
        found.place = place
        return found

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        return (str(self),), {"place": self.place}

    def line(self, line: int) -> str:
        r"""``file:line`` of one of its lines; text of several begins below its key.

        >>> Placed("y = x\nlin(y)", place="mine.yaml:7").line(2)
        'mine.yaml:9'
        """
        file, colon, first = self.place.rpartition(":")
        if not colon or not first.isdigit():
            return self.place
        return f"{file}:{int(first) + (line if chr(10) in self else 0)}"


class NodeConfig(pydantic.BaseModel):
    """One node, fully spelled out.

    Args:
        layer: name of the interaction.
        inputs: what it reads: nodes above it or sources.
        options: keyword arguments of the layer.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    layer: str
    inputs: tuple[str, ...] = ("fields",)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict) and "options" not in value:
            options = {key: item for key, item in value.items() if key not in cls.model_fields}
            kept = {key: item for key, item in value.items() if key in cls.model_fields}
            return {**kept, "options": options}
        return value

    def to_mapping(self) -> dict[str, Any]:
        """The node as it would be written in YAML.

        >>> NodeConfig(layer="mlp", options={"dropout": 0.1}).to_mapping()
        {'layer': 'mlp', 'inputs': ['fields'], 'dropout': 0.1}
        """
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.options.items()
        }
        if FORMULA in options:
            options[FORMULA] = str(options[FORMULA])
        return {"layer": str(self.layer), "inputs": list(self.inputs), **options}

    def at(self, place: str) -> "NodeConfig":
        """A copy that stands at a place: ``file:line``, or what else errors shall say.

        >>> NodeConfig(layer="mlp").at("mine.yaml:7").told("deep")
        'mine.yaml:7: deep'
        """
        return self.model_copy(update={"layer": Placed(self.layer, place=place)})

    def with_override(self, name: str, value: Any) -> "NodeConfig":
        """As :meth:`with_option`; the node's place tells that the command line has a part in it.

        >>> node = NodeConfig(layer="mlp").at("mine.yaml:7")
        >>> node.with_override("dropout", 0.1).with_override("batch_norm", True).told("deep")
        'mine.yaml:7, with overrides: deep'
        """
        found = self.with_option(name, value)
        if not isinstance(self.layer, Placed):
            return found
        return found.at(self.layer.place.removesuffix(_OVERRIDDEN) + _OVERRIDDEN)

    def told(self, name: str) -> str:
        """The node as an error names it, with its place where that is known.

        >>> NodeConfig(layer="mlp").told("deep")
        'model.nodes.deep'
        """
        if isinstance(self.layer, Placed):
            return f"{self.layer.place}: {name}"
        return f"model.nodes.{name}"

    def with_option(self, name: str, value: Any) -> "NodeConfig":
        """A copy with one option set, converted to the type the layer declares.

        Raises:
            ValueError: the layer has no such option, or it cannot take the value.

        >>> NodeConfig(layer="mlp").with_option("hidden_units", [8, 4]).options
        {'hidden_units': (8, 4)}
        """
        if self.layer == FORMULA:
            return self._with_value(name, value)
        known = interactions.options(self.layer)
        if name not in known:
            raise ValueError(f"unknown option of '{self.layer}'.{nearest(name, known)}")
        value = option_value(value, known[name].annotation)
        return self.model_copy(update={"options": {**self.options, name: value}})

    def _with_value(self, name: str, value: Any) -> "NodeConfig":
        """A value for a formula; only what the formula is written with can be set."""
        if name not in self.options:
            raise ValueError(f"the formula has no such value.{nearest(name, self.options)}")
        if name != FORMULA:
            value = formula_value(value)
        elif not isinstance(value, str):
            raise ValueError(f"must be text; got {value!r}.")
        return self.model_copy(update={"options": {**self.options, name: value}})


def formula_value(value: Any) -> Any:
    """A value that a formula is given; a list as a tuple.

    Raises:
        ValueError: it is none that a formula can speak of.

    >>> formula_value([8, [True]])
    (8, (True,))
    """
    if isinstance(value, list | tuple) and value:
        return tuple(formula_value(one) for one in value)
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError(
            "a formula's value must be a number, a text, true or false, or a list of these; got "
            f"{value!r}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number; got {value!r}.")
    return value


def formula_names(node: NodeConfig) -> tuple[str, ...]:
    """What a formula may speak of: its inputs and values.

    >>> formula_names(NodeConfig(layer="formula", options={"formula": "lin(x)", "width": 3}))
    ('x', 'fields', 'width')
    """
    return ("x", *node.inputs, *(name for name in node.options if name != FORMULA))


def heads(nodes: dict[str, NodeConfig]) -> tuple[str, ...]:
    """The nodes no other node reads, in order.

    >>> heads({"a": NodeConfig(layer="fm"), "b": NodeConfig(layer="mlp", inputs=("a",))})
    ('b',)
    """
    read = {source for node in nodes.values() for source in node.inputs}
    return tuple(name for name in nodes if name not in read)


def express_node(node: NodeConfig, *inputs: "Expr", name: str, joined: "Expr") -> "Expr":
    """What a node computes of its inputs.

    Args:
        node: the node.
        inputs: what it reads, one by one.
        name: the node's name, for errors.
        joined: the inputs put together; what an interaction of a single input reads.

    Raises:
        ConfigError: the interaction refuses its options or the shape of an input.
    """
    try:
        if node.layer == FORMULA:
            named = {"x": joined, **dict(zip(node.inputs, inputs, strict=True))}
            values = {key: value for key, value in node.options.items() if key != FORMULA}
            return express_formula(node.options[FORMULA], named, values)
        read = (joined,) if interactions.num_inputs(node.layer) == 1 else inputs
        return interactions.express(node.layer, *read, **node.options)
    except ValueError as cause:
        text = node.options.get(FORMULA)
        if isinstance(cause, FormulaError) and isinstance(text, Placed):
            place = text.line(cause.line)
            raise ConfigError(f"{place}: {name}.formula: {cause.message}") from cause
        widths = {expr.num_channels for expr in inputs}
        why = ""
        if joined.num_tokens == 1 and len(widths) > 1 and len(inputs) > 1:
            told = ", ".join(str(expr.num_channels) for expr in inputs)
            why = f" Its inputs are of the widths {told}, so they were joined to one flat row."
        raise ConfigError(f"{node.told(name)}: {cause}{why}") from cause
    except (RuntimeError, OverflowError, MemoryError) as cause:
        first = (str(cause).splitlines() or ["too large"])[0]
        raise ConfigError(f"{node.told(name)}: cannot be made: {first}") from cause
