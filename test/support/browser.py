"""The headless Chromium that films are made with, for tests of pages."""

from timar_ros.evaluation.report.browser import CHROMIUM, Browser

__all__ = ["CHROMIUM", "Browser"]
