"""A node whose parameters come from a table."""

from __future__ import annotations

from typing import Any, ClassVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from timar_ros.errors import UserError
from timar_ros.ros.parameters import Parameter


class ParameterNode(Node):
    """Declares the parameters of its tables, and refuses invalid values with a reason.

    A mixin for a class that is an rclpy node.
    """

    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()
    phase: str

    def changed(self, name: str, value: Any) -> None:
        """Called when a dynamic parameter has a new, checked value."""

    def value(self, name: str) -> Any:
        """A parameter's current value, in the type of its table."""
        return self._table[name].coerce(self.get_parameter(name).value)

    def declare_table(self, table: tuple[Parameter, ...]) -> None:
        """Declare every parameter of the table.

        :raises UserError: when a parameter override is invalid.
        """
        self._table = {parameter.name: parameter for parameter in table}
        for parameter in table:
            try:
                value = self.declare_parameter(parameter.name, parameter.default, parameter.descriptor()).value
                reason = parameter.fault(value)
            except Exception as error:
                reason = f"'{parameter.name}': {error}"
            if reason is not None:
                raise UserError(f"{self.get_name()}: parameter {reason}")
            if type(coerced := parameter.coerce(value)) is not type(value) and isinstance(coerced, float):
                self.set_parameters([RosParameter(parameter.name, value=coerced)])
        self.add_pre_set_parameters_callback(self._typed)
        self.add_on_set_parameters_callback(self._check)
        self.add_post_set_parameters_callback(self._notify)

    def _typed(self, parameters: list[RosParameter]) -> list[RosParameter]:
        """Convert integers for float parameters to float, so that a parameter keeps its type."""
        return [
            RosParameter(item.name, value=float(item.value))
            if type(item.value) is int and isinstance(self._table[item.name].default, float)
            else item
            for item in parameters
            if item.name in self._table
        ] + [item for item in parameters if item.name not in self._table]

    def _check(self, parameters: list[Any]) -> SetParametersResult:
        for item in parameters:
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

    def _notify(self, parameters: list[Any]) -> None:
        for item in parameters:
            if item.name in self._table and self.phase != "unconfigured":
                self.changed(item.name, self.value(item.name))
