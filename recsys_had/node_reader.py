"""Reads the nodes of an experiment file, over those of a definition, and tells what is wrong."""

import unicodedata
from collections.abc import Collection
from typing import Any

from recsys_had import interactions
from recsys_had.interactions.formula import FormulaError, check_formula, names_read
from recsys_had.nodes import FORMULA, SOURCES, NodeConfig, Placed, formula_names, formula_value
from recsys_had.suggest import nearest
from recsys_had.yamlfile import KeyPath, YamlDocument, in_words


def resolve_nodes(
    own: Any,
    document: YamlDocument,
    definition: YamlDocument | None,
    *,
    sources: Collection[str] = (),
    may_be_more: bool = False,
) -> tuple[dict[str, NodeConfig], list[str]]:
    """Spells out the nodes of an experiment on top of those of a model definition.

    Args:
        own: the experiment's nodes, or None.
        document: the experiment.
        definition: the model definition, if it names one.
        sources: what nodes may read beside ``fields``, ``dense`` and each other.
        may_be_more: whether there may be sources nobody knows yet, so that a name that is none is
            left for the model to judge.

    Returns:
        The nodes in order, and one line per problem.
    """
    reader = _Reader((*SOURCES, *sources))
    if definition is not None:
        reader.read(definition.content.get("nodes"), definition, ("nodes",))
    if own is not None or definition is None:
        reader.read(own, document, ("model", "nodes"))
    if definition is not None:
        reader.sort()
    reader.check_inputs(may_be_more=may_be_more)
    return reader.nodes, reader.problems


class _Reader:
    def __init__(self, sources: tuple[str, ...]) -> None:
        self._sources = sources
        self.nodes: dict[str, NodeConfig] = {}
        self.problems: list[str] = []
        self.places: dict[str, str] = {}
        self._document = YamlDocument(path="", content={})
        self._links: dict[str, str] = {}
        self.names = set(interactions.names())

    def read(self, content: Any, document: YamlDocument, at: KeyPath) -> None:
        self._document = document
        self._links = {}
        if not isinstance(content, dict | list) or not content:
            place = document.place(at)
            self.problems.append(f"{place}: {'.'.join(map(str, at))}: must hold nodes. Add one.")
            return
        if isinstance(content, list):
            self._read_list(content, at)
            return
        for name, value in content.items():
            self._add(str(name), value, (*at, name))

    def _read_list(self, content: list[Any], at: KeyPath) -> None:
        seen: set[str] = set()
        for position, item in enumerate(content):
            here = (*at, position)
            place = self._document.place(here)
            if not isinstance(item, dict | str):
                self.problems.append(
                    f"{place}: a node must be a layer's name or a mapping; got {in_words(item)}."
                )
                continue
            for name, value in (item if isinstance(item, dict) else {item: None}).items():
                if name in seen:
                    self.problems.append(
                        f"{place}: {name}: a second node of this name. Give it one of its own."
                    )
                    continue
                seen.add(name)
                self._add(str(name), value, (*here, name))

    def _add(self, name: str, value: Any, at: KeyPath) -> None:
        place = self._document.place(at)
        if name in self._links:
            self.problems.append(
                f"{place}: {name}: the chain '{self._links[name]}' has a link of this name. Give "
                "one of them another."
            )
            return
        if not _is_name(name) or name in self._sources:
            self.problems.append(
                f"{place}: {name}: a node's name must be an identifier other than "
                f"{', '.join(self._sources[:-1])} and {self._sources[-1]}. Rename it."
            )
            return
        self.places[name] = place
        if isinstance(value, list):
            self._add_chain(name, value, at)
            return
        if value is None or isinstance(value, str):
            value = {} if value is None else {"layer": value}
        if not isinstance(value, dict):
            self.problems.append(
                f"{place}: {name}: must be a layer's name, a chain or options; got {value!r}."
            )
            return
        base = self.nodes.get(name)
        given = {str(key): setting for key, setting in value.items()}
        layer = given.pop("layer", FORMULA if FORMULA in given else base.layer if base else name)
        if not isinstance(layer, str):
            self.problems.append(f"{place}: {name}.layer: must be a layer's name; got {layer!r}.")
            return
        inputs = given.pop("inputs", base.inputs if base else ("fields",))
        inputs = [inputs] if isinstance(inputs, str) else inputs
        is_named = isinstance(inputs, list | tuple) and all(isinstance(x, str) for x in inputs)
        if not is_named:
            self.problems.append(
                f"{place}: {name}.inputs: must be a list of names; got {inputs!r}. Write for "
                "example [fields]."
            )
            return
        inputs = tuple(inputs)
        if FORMULA in given or layer == FORMULA:
            self._add_formula(name, layer, inputs, given, at)
            return
        if layer not in self.names:
            self.problems.append(
                f"{place}: {name}: no layer '{layer}'.{nearest(str(layer), self.names)}"
            )
            return
        options = dict(base.options) if base and base.layer == layer else {}
        node = NodeConfig(layer=layer, inputs=inputs, options=options)
        for option, setting in given.items():
            try:
                node = node.with_option(str(option), setting)
            except ValueError as problem:
                self.problems.append(f"{place}: {name}.{option}: {problem}")
        self.nodes[name] = node.at(place)

    def _add_formula(
        self, name: str, layer: str, inputs: tuple[str, ...], given: dict[str, Any], at: KeyPath
    ) -> None:
        place = self._document.place(at)
        base = self.nodes.get(name)
        options = {**(base.options if base and base.layer == FORMULA else {}), **given}
        text = options.get(FORMULA)
        if layer not in (name, FORMULA):
            self.problems.append(
                f"{place}: {name}: has a layer and a formula. Leave one of them out."
            )
            return
        if not isinstance(text, str):
            self.problems.append(f"{place}: {name}.formula: must be text; got {text!r}.")
            return
        for option, value in options.items():
            try:
                options[option] = formula_value(value)
                if not _is_name(option) or option in ("x", *inputs):
                    raise ValueError("must be an identifier that is no input.")
            except ValueError as problem:
                self.problems.append(f"{place}: {name}.{option}: {problem}")
                return
        # One that is a definition's stands there, whatever value of it is another here.
        if FORMULA in given or not isinstance(text, Placed):
            text = Placed(text, place=self._document.place((*at, FORMULA)))
        options[FORMULA] = text
        node = NodeConfig(layer=FORMULA, inputs=inputs, options=options).at(place)
        self.nodes[name] = node
        try:
            check_formula(text, formula_names(node))
        except FormulaError as problem:
            self.problems.append(f"{text.line(problem.line)}: {name}.formula: {problem.message}")
            return
        # What a definition gives another formula than this one is not this one's.
        read = {*names_read(text), FORMULA}
        kept = {option: value for option, value in options.items() if option in read}
        self.nodes[name] = node.model_copy(update={"options": kept})
        inherited = base.options if base else {}
        self.problems += [
            f"{place}: {name}.{option}: the formula does not read it."
            f"{nearest(option, [*inherited, 'inputs', 'layer'])}"
            for option in given
            if option not in read
        ]
        if "x" not in read:
            self.problems += [
                f"{place}: {name}.inputs: the formula does not read '{source}'. Leave it out."
                for source in inputs
                if source not in read
            ]

    def _add_chain(self, name: str, links: list[Any], at: KeyPath) -> None:
        """``deep: [senet, mlp]`` is the node deep (mlp) reading the node deep_senet."""
        place = self._document.place(at)
        if not links:
            self.problems.append(f"{place}: {name}: a chain must be of one layer or more.")
        previous = None
        for position, link in enumerate(links):
            place = self._document.place((*at, position))
            entry = link if isinstance(link, dict) else {str(link): None}
            if len(entry) != 1:
                self.problems.append(f"{place}: {name}: a link of a chain must be one layer.")
                return
            layer, options = next(iter(entry.items()))
            if layer == FORMULA and isinstance(options, str):
                options = {FORMULA: options}
            if not isinstance(options, dict | None):
                self.problems.append(
                    f"{place}: {name}: what {layer} is given must be a mapping of options to "
                    f"values; got {options!r}."
                )
                return
            node = {"layer": layer, **(options or {})}
            if previous is not None:
                if "inputs" in node:
                    self.problems.append(
                        f"{place}: {name}: only the first link of a chain may name its inputs."
                    )
                    return
                node["inputs"] = [previous]
            last = position == len(links) - 1
            own_name = name if last else f"{name}_{layer}"
            while not last and own_name in self.nodes:
                own_name += "_"
            self._add(own_name, node, (*at, position, layer))
            if not last:
                self._links[own_name] = name
            previous = own_name

    def sort(self) -> None:
        """Puts nodes below those they read, where an experiment gives a definition's other ones."""
        waiting, self.nodes = self.nodes, {}
        while waiting:
            ready = (name for name, node in waiting.items() if not waiting.keys() & {*node.inputs})
            # Those left read each other in a circle, as is told of them.
            name = next(ready, next(iter(waiting)))
            self.nodes[name] = waiting.pop(name)

    def check_inputs(self, *, may_be_more: bool) -> None:
        above: list[str] = list(self._sources)
        for name, node in self.nodes.items():
            for source in node.inputs:
                if source not in above and (source in self.nodes or not may_be_more):
                    self.problems.append(
                        f"{self.places[name]}: {name}.inputs: '{source}' is no node above it."
                        f"{nearest(source, above)}"
                    )
            if not node.inputs:
                self.problems.append(f"{self.places[name]}: {name}.inputs: names nothing to read.")
            above.append(name)


def _is_name(text: str) -> bool:
    """Whether a formula can speak of it: an identifier that Python does not write otherwise."""
    return text.isidentifier() and text == unicodedata.normalize("NFKC", text)
