#!/usr/bin/env bash
# All checks on a GPU in one command: golden, equality, latency, throughput, training; see scripts/gpu_check.py.
#   bash scripts/gpu_check.sh --out DIR [--wheels DIR] [--seconds 460] [--device cuda] [--quick] [--only STAGE ...]
# Needs python3 with torch, transformers and numpy; soundfile (with cffi), soxr and ruckig may come as wheels (--wheels or TIMAR_WHEELS),
# installed without a network into a folder that is removed afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" scripts/gpu_check.py "$@"
