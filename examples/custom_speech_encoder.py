"""A model with a speech encoder of your own: `custom_speech_encoder.py FOLDER`.

TIMAR takes any wav2vec 2.0, HuBERT or WavLM of transformers. This one has random weights, as before a training; a
trained encoder comes in by `load_timar(..., speech=FOLDER)` or the parameter `speech` of `timar_inference`.
"""

import sys

import numpy as np

from timar_ros.model import TimarConfig, create_timar, load_timar, save_timar
from timar_ros.streaming import generate

ENCODER = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [32, 32],
    "conv_stride": [160, 2],
    "conv_kernel": [400, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
}
"""Arguments of transformers' HubertConfig. Strides of 160 and 2 samples: a feature every 20 ms, as wav2vec 2.0."""

config = TimarConfig.of_size("mini")
config = type(config)(**{**config.__dict__, "speech_width": ENCODER["hidden_size"]})  # the two must agree
save_timar(create_timar(config, ENCODER, seed=0, zero_head=False), sys.argv[1], name="custom-encoder")
model = load_timar(sys.argv[1])  # `timar generate --model FOLDER` and the nodes take the same folder
user, agent = np.random.default_rng(0).normal(0.0, 0.1, (2, 32000)).astype(np.float32)  # 2 s at 16 kHz
print(
    f"'{model.name}' ({'trained' if model.trained else 'UNTRAINED'}): motion {generate(model, None, user, agent).shape}"
)
