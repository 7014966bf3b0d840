"""A node whose parameters come from a table."""

from __future__ import annotations

from typing import Any, ClassVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from timar_ros.errors import UserError
from timar_ros.nodes.parameters import Parameter


class ParameterNode(Node):
    """Declares the parameters of its tables and refuses what they do not allow, with the reason.

    A mixin: the class that it is mixed into is the rclpy node.
    """

    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()
    phase: str

    def changed(self, name: str, value: Any) -> None:
        """A dynamic parameter has a new, checked value."""

    def value(self, name: str) -> Any:
        """A parameter's present value, in its table's type."""
        return self._table[name].coerce(self.get_parameter(name).value)

    def declare_table(self, table: tuple[Parameter, ...]) -> None:
        """Declare every parameter of the table.

        :raises UserError: when a value given at the start is refused.
        """
        self._table = {parameter.name: parameter for parameter in table}
        for parameter in table:
            try:
                given = self.declare_parameter(parameter.name, parameter.default, parameter.descriptor()).value
                reason = parameter.fault(given)
            except Exception as error:
                reason = f"'{parameter.name}': {error}"
            if reason is not None:
                raise UserError(f"{self.get_name()}: parameter {reason}")
            if type(coerced := parameter.coerce(given)) is not type(given) and isinstance(coerced, float):
                self.set_parameters([RosParameter(parameter.name, value=coerced)])
        self.add_pre_set_parameters_callback(self._typed)
        self.add_on_set_parameters_callback(self._check)
        self.add_post_set_parameters_callback(self._notify)

    def _typed(self, given: list[RosParameter]) -> list[RosParameter]:
        """An integer that is given for a number becomes one: the parameter keeps its type."""
        return [
            RosParameter(item.name, value=float(item.value))
            if type(item.value) is int and isinstance(self._table[item.name].default, float)
            else item
            for item in given
            if item.name in self._table
        ] + [item for item in given if item.name not in self._table]

    def _check(self, given: list[Any]) -> SetParametersResult:
        for item in given:
            parameter = self._table.get(item.name)
            if parameter is None:
                continue
            if not parameter.dynamic and self.phase != "unconfigured":
                reason: str | None = f"'{item.name}' can change only while the node is unconfigured: clean it up first"
            else:
                reason = parameter.fault(item.value)
            if reason is not None:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _notify(self, given: list[Any]) -> None:
        for item in given:
            if item.name in self._table and self.phase != "unconfigured":
                self.changed(item.name, self.value(item.name))
