"""What graspl calls of vLLM, answered by Transformers, which must be installed in its place."""

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Engine:
    """Ids go in, ids come out, the one that stopped among them."""

    def __init__(self, base_model, *, seed, generation_config, enable_lora, **_others):
        assert generation_config == "vllm", "the model folder's own settings would be in force"
        self.base, self.enable_lora = base_model, enable_lora

    def generate(self, prompts, drawn, lora_request=None):
        assert (lora_request is not None) == self.enable_lora
        model = AutoModelForCausalLM.from_pretrained(self.base)
        if lora_request is not None:
            model = PeftModel.from_pretrained(model, lora_request.path)
        found = []
        for prompt in prompts:
            ids = torch.tensor([prompt["prompt_token_ids"]])
            out = model.generate(
                input_ids=ids,
                do_sample=False,
                max_new_tokens=drawn.max_tokens,
                eos_token_id=drawn.stop_token_ids,
                pad_token_id=1,
            )
            answer = SimpleNamespace(token_ids=tuple(out[0, ids.shape[1] :].tolist()))
            found.append(SimpleNamespace(outputs=[answer]))
        return found


@contextmanager
def stand_in(monkeypatch):
    """Put it in vLLM's place within the block."""
    engine = ModuleType("vllm")
    engine.LLM, engine.SamplingParams = Engine, SimpleNamespace
    lora, request = ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: SimpleNamespace(path=path)
    with monkeypatch.context() as patch:
        for name, module in (("vllm", engine), ("vllm.lora", lora), ("vllm.lora.request", request)):
            patch.setitem(sys.modules, name, module)
        yield
