"""Parts of single nodes; the nodes themselves are in `timar_ros.nodes`."""
