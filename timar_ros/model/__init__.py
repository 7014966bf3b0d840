"""The TIMAR network: configuration, weights, tokens to conditioning, and the diffusion head."""

from timar_ros.model.checkpoint import create_timar, load_timar, place_timar, save_timar
from timar_ros.model.config import TimarConfig
from timar_ros.model.timar import Timar

__all__ = ["Timar", "TimarConfig", "create_timar", "load_timar", "place_timar", "save_timar"]
